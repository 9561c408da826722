"""What `verify` checks of the order of units and of healing, with systemd as the judge.

The units are those of a deploy; Docker and the refresh of NVIDIA's toolkit are stand-ins that do
nothing, because only their order matters. A check that passes must fail after each change by hand.
"""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest
import testinfra

from llmhost.checks import test_container_toolkit as toolkit
from llmhost.checks import test_healing as healing
from llmhost.inventory.reader import read_settings
from llmhost.resources import FILES
from llmhost.tasks.healing import SCRIPT, heal_containers
from testbed import Lan, Machine
from tests.integration.harness import deploy

pytestmark = pytest.mark.machines

UNITS = "/etc/systemd/system"
REFRESH = f"{UNITS}/nvidia-cdi-refresh.service"
HEAL = f"{UNITS}/llmhost-heal.service"
STAND_IN = """\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/true
[Install]
WantedBy=multi-user.target
"""
DROP_INS = {
    f"{UNITS}/docker.service.d/50-llmhost-gpu.conf": "docker.conf",
    f"{REFRESH}.d/50-llmhost.conf": "cdi-refresh.conf",
}
OPTIONS = {
    "services": ["redis"],
    "api_clients": [{"name": "a", "sha256": "ab" * 32}],
}
SETTINGS = read_settings(OPTIONS)


def _heal(options: dict[str, object]) -> None:
    heal_containers(read_settings(options))


def _is_ordered(host: Any) -> None:
    toolkit.test_docker_starts_after_the_specs_or_after_a_limited_wait(host)


def _has_timer(host: Any) -> None:
    healing.test_timer_runs_where_it_is_declared(host, SETTINGS)


def _heals_with_docker(host: Any) -> None:
    healing.test_containers_are_healed_as_soon_as_docker_runs(host, SETTINGS)


def _healed(host: Any) -> None:
    healing.test_last_run_succeeded(host, SETTINGS)


Check = Callable[[Any], None]

CHANGES: tuple[tuple[Check, str], ...] = (
    (_is_ordered, f"rm {UNITS}/docker.service.d/50-llmhost-gpu.conf"),
    (_is_ordered, f"sed -i /JobRunningTimeoutSec/d {REFRESH}.d/50-llmhost.conf"),
    (_is_ordered, "systemctl disable nvidia-cdi-refresh.service"),
    (_has_timer, "systemctl stop llmhost-heal.timer"),
    (_has_timer, "systemctl disable llmhost-heal.timer"),
    (_heals_with_docker, "systemctl disable llmhost-heal.service"),
    (_heals_with_docker, f"sed -i /^After=/d {HEAL}"),
    (_healed, f"chmod -x {SCRIPT}; systemctl start llmhost-heal.service"),
)


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Machine]:
    """A machine of its own: its Docker is none. What a deploy leaves is kept in /root/kept."""
    machine = lan.machine("order")
    for unit in (REFRESH, f"{UNITS}/docker.service"):
        machine.ssh(f"cat >{unit}; systemctl enable {unit}", input=STAND_IN)
    for path, name in DROP_INS.items():
        text = (FILES / "container_toolkit" / name).read_text()
        machine.ssh(f"mkdir -p {PurePosixPath(path).parent}; cat >{path}", input=text)
    machine.ssh("printf '#!/bin/sh\\n' >/usr/local/bin/docker; chmod +x /usr/local/bin/docker")
    machine.ssh("systemctl daemon-reload; systemctl start docker")
    outcome = deploy(machine, _heal, OPTIONS)
    assert outcome.succeeded, outcome.output
    machine.ssh(f"mkdir /root/kept; cp -a {UNITS} {SCRIPT} /root/kept")
    yield machine
    machine.destroy()


@pytest.fixture
def host(machine: Machine) -> Any:
    """As a deploy leaves it."""
    machine.ssh(
        f"rm -r {UNITS}; cp -a /root/kept/system {UNITS}; cp -a /root/kept/llmhost-heal {SCRIPT};"
        " systemctl daemon-reload; systemctl reset-failed;"
        " systemctl start llmhost-heal.timer llmhost-heal.service"
    )
    return testinfra.get_host(f"ssh://{machine.name}", ssh_config=str(machine.ssh_config))


@pytest.mark.parametrize(("check", "change"), CHANGES)
def test_check_fails_after_a_change_by_hand(
    machine: Machine, host: Any, check: Check, change: str
) -> None:
    check(host)
    machine.ssh(f"{change}; systemctl daemon-reload", check=False)
    with pytest.raises(AssertionError):
        check(host)
