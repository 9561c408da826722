"""Machines with nothing on them: the README's commands on one, and the first deploy of another.

A minimal machine has what Debian's container images have, a service manager and sshd.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import Lan, Machine, pip
from testbed.apt import default_suite, os_release
from tests.host_programs import HANDLED, KNOWN, MINIMAL
from tests.integration.drift.server import Server, declared_server
from tests.shell_programs import programs

pytestmark = pytest.mark.machines
ROOT = Path(__file__).parents[2]
CHECKOUT = "/srv/llmhost"
PLAIN = ("/srv", "/var/cache/llmhost")
"""Where a fresh machine keeps machines of its own, whose disks are overlays themselves."""
# On Ubuntu no source of Debian's packages is configured.
FIRST, *LATER = ("bookworm", "trixie") if os_release()["ID"] == "debian" else (default_suite(),)
CALL_PROGRAMS = "nginx openssl tls curl gpg apt git kernel modinfo scripts memory"
"""Words in the names of unit tests that call the programs that script/test installs."""

ABSENT = "curl gpg ip kmod lsb_release modinfo openssl ps python3 ss sudo sysctl wget"
_REMOVE_PROCPS = "sed -i '/^Depends:/s/ procps,//' /var/lib/dpkg/status && dpkg --purge procps"
"""openssh-server depends on it, as does ucf: a host with another SSH server may be without."""


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with Lan.create("fresh") as lan:
        yield lan


@pytest.fixture
def fresh(lan: Lan, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A minimal machine of the suite that the test names, with a checkout of HEAD."""
    machine = lan.machine("fresh", suite=request.param, minimal=True, volumes=PLAIN)
    try:
        machine.ssh("cat >/etc/pip.conf", input=pip.configuration())
        ssh = f"ssh -F {machine.ssh_config} {machine.name}"
        unpack = f"mkdir {CHECKOUT} && tar --extract --directory {CHECKOUT}"
        git = f"git -c safe.directory={ROOT} archive HEAD"
        script = f"set -o pipefail; {git} | {ssh} '{unpack}'"
        subprocess.run(["bash", "-c", script], cwd=ROOT, check=True)
        yield machine
    finally:
        machine.destroy()


def run(machine: Machine, command: str) -> str:
    """Run a command of the checkout as root; returns what it said, and fails with it."""
    script = f"cd {CHECKOUT} && {command} 2>&1"
    result = machine.ssh(script, check=False, timeout=3000)
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.fresh
@pytest.mark.parametrize("fresh", [FIRST], indirect=True)
def test_tests_that_call_programs_pass_on_a_minimal_machine(fresh: Machine) -> None:
    called = CALL_PROGRAMS.replace(" ", " or ")
    said = run(fresh, f"script/test -- tests/unit -m 'not fuzz' -k '{called}'")
    assert "--> Installing what tests need:" in said
    assert " passed" in said and " failed" not in said


@pytest.mark.fresh
@pytest.mark.parametrize("fresh", [FIRST, *LATER], indirect=True)
def test_fast_tests_pass_on_a_minimal_machine(fresh: Machine) -> None:
    said = run(fresh, "script/test fast")
    assert "--> Installing what tests need:" in said
    assert " passed" in said and " failed" not in said


@pytest.mark.fresh
@pytest.mark.parametrize("fresh", [FIRST, *LATER], indirect=True)
def test_demo_comes_up_on_a_minimal_machine(fresh: Machine) -> None:
    """A machine in the machine, deployed and verified."""
    said = run(fresh, "script/demo")
    assert "The server answers at" in said
    command = next(line for line in said.splitlines() if line.startswith("curl "))
    assert '"finish_reason"' in fresh.ssh(command).stdout
    run(fresh, "script/demo --down")
    assert fresh.ssh("ip netns list; ls /var/lib/llmhost-lans/*.json", check=False).stdout == ""


@pytest.fixture(params=["minimal", pytest.param("minimal-gpu", marks=pytest.mark.fresh)])
def bare(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A declared server whose machine has as few programs as possible."""
    with declared_server(tmp_path / "bare", request.param) as server:
        server.machine.ssh(_REMOVE_PROCPS)
        yield server


def test_first_deploy_of_a_minimal_machine_converges(bare: Server, tmp_path: Path) -> None:
    basis = " ".join(MINIMAL.values())
    assert missing(bare.machine, basis) == set()
    assert missing(bare.machine, ABSENT) == set(ABSENT.split())
    notes = tmp_path / "commands"
    command = [sys.executable, "-m", "tests.integration.recorded", str(notes)]
    deployed = bare.run(*command, *bare.deployment[1:])
    assert deployed.returncode == 0, deployed.stderr
    assert "not found" not in deployed.stderr
    commands = map(json.loads, notes.read_text().splitlines())
    called = {name for script in commands for name in programs(script)}
    assert called <= KNOWN
    assert missing(bare.machine, " ".join(called)) <= HANDLED.keys()
    status, found = bare.plan()
    assert status == 0, found
    verified = bare.check("llmhost/checks")
    assert verified.returncode == 0, verified.stdout


def missing(machine: Machine, names: str) -> set[str]:
    """Those of the programs that are not on a machine."""
    places = "/usr/lib/apt /lib/systemd /lib/ufw"
    look = (
        f"for name in {names}; do PATH=$PATH:/usr/sbin:{places.replace(' ', ':')};"
        ' command -v "$name" >/dev/null || echo "$name"; done'
    )
    return set(machine.ssh(look).stdout.split())
