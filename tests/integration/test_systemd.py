"""Units under the real systemd."""

from collections.abc import Iterator
from typing import Any

import pytest

from llmhost.operations import systemd
from testbed import Machine
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines

UNIT = """\
[Unit]
Description=A unit for tests
[Service]
ExecStart=/bin/sh -c 'while [ ! -e /etc/llmhost-test/fails ]; do sleep 0.1; done; exit 3'
ExecReload=/bin/sh -c 'test ! -e /etc/llmhost-test/fails-to-reload'
[Install]
WantedBy=multi-user.target
"""
NAME = "llmhost-test.service"
CONFIGURATION = "/etc/llmhost-test"
PATH = f"/etc/systemd/system/{NAME}"


def _service(arguments: dict[str, Any]) -> None:
    systemd.service(NAME, name="Run the unit", **arguments)


def _boot(*units: str) -> None:
    systemd.starts_at_boot(*units, name="Start at boot")


RESTARTED = {"newer_than": [CONFIGURATION]}
RELOADED = {"newer_than": [CONFIGURATION], "reload": True}


@pytest.fixture
def host(machine: Machine) -> Iterator[Machine]:
    machine.ssh(f"mkdir -p {CONFIGURATION}; cat > {PATH}", input=UNIT)
    machine.ssh("systemctl daemon-reload")
    yield machine
    machine.ssh(f"systemctl unmask -q {NAME}; systemctl unmask -q --runtime {NAME}")
    machine.ssh(f"systemctl disable -q --now {NAME}; rm -rf {CONFIGURATION}", check=False)
    machine.ssh(f"rm -rf {PATH}*; systemctl daemon-reload")
    machine.ssh(f"systemctl reset-failed {NAME}", check=False)


def _pid(machine: Machine) -> str:
    return machine.ssh(f"systemctl show -P MainPID {NAME}").stdout.strip()


def _states(machine: Machine) -> list[str]:
    asked = f"systemctl is-active {NAME}; systemctl is-enabled {NAME}"
    return machine.ssh(asked, check=False).stdout.split()


def test_unit_runs_now_and_at_boot(host: Machine) -> None:
    assert converge(host, _service, {}).changed == ["Run the unit"]
    assert _states(host) == ["active", "enabled"]


@pytest.mark.parametrize("how", ["mask", "mask --runtime"])
def test_masked_unit_runs(host: Machine, how: str) -> None:
    host.ssh(f"mv {PATH} /usr/lib/systemd/system/; systemctl {how} {NAME}")
    try:
        converge(host, _service, {})
        assert _states(host) == ["active", "enabled"]
    finally:
        host.ssh(f"mv /usr/lib/systemd/system/{NAME} /etc/systemd/system/")


def test_unit_is_stopped_for_good(host: Machine) -> None:
    assert deploy(host, _service, {}).succeeded
    converge(host, _service, {"running": False, "enabled": False})
    assert _states(host) == ["inactive", "disabled"]


def test_unit_is_restarted_when_a_file_below_its_configuration_is_newer(host: Machine) -> None:
    deploy(host, _service, RESTARTED)
    first = _pid(host)
    # As if a run had been killed between writing the file and restarting the unit; the file even
    # has an old time, as one that is restored from a backup.
    host.ssh(f"touch -d 2020-01-01 {CONFIGURATION}/restored.conf")
    assert deploy(host, _service, RESTARTED, dry=True).changed == ["Run the unit"]
    assert _pid(host) == first
    assert converge(host, _service, RESTARTED).changed == ["Run the unit"]
    assert _pid(host) != first


def test_removed_file_counts_too(host: Machine) -> None:
    host.ssh(f"touch {CONFIGURATION}/extra.conf")
    deploy(host, _service, RESTARTED)
    first = _pid(host)
    host.ssh(f"rm {CONFIGURATION}/extra.conf")
    assert converge(host, _service, RESTARTED).changed == ["Run the unit"]
    assert _pid(host) != first


def test_unit_is_reloaded_without_a_restart(host: Machine) -> None:
    deploy(host, _service, RELOADED)
    first = _pid(host)
    host.ssh(f"touch {CONFIGURATION}/new.conf")
    assert converge(host, _service, RELOADED).changed == ["Run the unit"]
    assert _pid(host) == first


def test_failed_reload_is_tried_again(host: Machine) -> None:
    deploy(host, _service, RELOADED)
    host.ssh(f"touch {CONFIGURATION}/fails-to-reload")
    assert not deploy(host, _service, RELOADED).succeeded
    assert not deploy(host, _service, RELOADED).succeeded
    host.ssh(f"rm {CONFIGURATION}/fails-to-reload")
    assert converge(host, _service, RELOADED).changed == ["Run the unit"]


def test_unit_with_an_older_unit_file_is_restarted(host: Machine) -> None:
    deploy(host, _service, {})
    first = _pid(host)
    host.ssh(f"mkdir {PATH}.d")
    host.ssh(f"printf '[Service]\\nEnvironment=COLOUR=blue\\n' > {PATH}.d/x.conf")
    assert converge(host, _service, {}).changed == ["Run the unit"]
    assert _pid(host) != first
    assert "COLOUR=blue" in host.ssh(f"tr '\\0' '\\n' < /proc/{_pid(host)}/environ").stdout


def test_crashed_unit_is_started_again(host: Machine) -> None:
    deploy(host, _service, {})
    host.ssh(f"touch {CONFIGURATION}/fails; sleep 0.5; rm {CONFIGURATION}/fails")
    assert _states(host)[0] == "failed"
    assert converge(host, _service, {}).changed == ["Run the unit"]


def test_unit_that_was_started_too_often_is_started(host: Machine) -> None:
    host.ssh(f"sed -i '/Unit/a StartLimitIntervalSec=1h\\nStartLimitBurst=1' {PATH}")
    host.ssh(f"systemctl daemon-reload; systemctl start {NAME}; touch {CONFIGURATION}/x.conf")
    assert converge(host, _service, RESTARTED).changed == ["Run the unit"]


def test_unit_that_can_not_start_says_why(host: Machine) -> None:
    host.ssh(f"sed -i 's,/bin/sh -c .while.*,/nonexistent/program,' {PATH}")
    host.ssh(f"sed -i 's,^.Service.$,&\\nType=exec,' {PATH}")
    outcome = deploy(host, _service, {})
    assert not outcome.succeeded and "/nonexistent/program" in outcome.output


def test_missing_unit_counts_as_a_change_in_a_dry_run(host: Machine) -> None:
    host.ssh(f"rm {PATH}; systemctl daemon-reload")
    planned = deploy(host, _service, {}, dry=True)
    assert planned.succeeded and planned.changed == ["Run the unit"]
    assert not deploy(host, _service, {}).succeeded


def test_one_of_several_units_starts_at_boot(host: Machine) -> None:
    alternatives = (NAME, "llmhost-nothing.socket")
    assert converge(host, _boot, *alternatives).changed == ["Start at boot"]
    assert _states(host) == ["inactive", "enabled"]


def test_enabled_alternative_is_enough(host: Machine) -> None:
    assert converge(host, _boot, NAME, "ssh.service").changed == []
    assert _states(host) == ["inactive", "disabled"]


ONCE = """\
[Service]
Type=oneshot
ExecStart=/etc/llmhost-test/program
[Install]
WantedBy=multi-user.target
"""


def _has_run() -> None:
    systemd.has_run(NAME, newer_than=[CONFIGURATION], name="Run it once")


def test_unit_that_ends_runs_again_once_its_program_is_corrected(host: Machine) -> None:
    program = f"{CONFIGURATION}/program"
    # Otherwise systemd forgets a unit that has ended.
    host.ssh(f"cat >{PATH}; systemctl enable --quiet {NAME}", input=ONCE)
    host.ssh(f"printf '#!/bin/sh\\n' >{program}; systemctl start {NAME}", check=False)
    assert host.ssh(f"systemctl show -P Result {NAME}").stdout == "exit-code\n"
    host.ssh(f"chmod 0755 {program}")
    assert converge(host, _has_run).changed == ["Run it once"]
    assert host.ssh(f"systemctl show -P Result {NAME}").stdout == "success\n"
