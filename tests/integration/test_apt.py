"""Packages and repositories under the real apt, with packages made for the purpose."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from llmhost.operations import apt
from llmhost.system.apt_repository import Repository
from testbed import Lan, Machine
from tests.doubles.apt_repository import DebDouble, build_repository, serving
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines

PACKAGES = [
    DebDouble("double-tool", "1.0", {"/usr/bin/double-tool": "#!/bin/sh\necho 1.0\n"}),
    DebDouble(
        "double-tool",
        "2.0",
        {"/usr/bin/double-tool": "#!/bin/sh\necho 2.0\n", "/etc/double-tool.conf": "2.0\n"},
    ),
    DebDouble("double-user", "5:1.0", fields={"Depends": "double-tool"}),
    # Its installation can be made to hang, so that it can be killed.
    DebDouble("double-slow", "1.0", postinst="[ ! -e /run/double-slow ] || sleep 60"),
    # As a kernel whose DKMS module cannot be built.
    DebDouble("double-broken", "1.0", postinst="echo 'no module was built' >&2; exit 1"),
]
CLEAN = """
rm -f /run/double-slow /etc/apt/sources.list.d/double.* /etc/apt/keyrings/double.*
doubles=$(dpkg-query -W -f '${Package} ' 'double-*' 2>/dev/null)
dpkg --purge --force-all $doubles >/dev/null 2>&1 || true
"""

HOLD_LOCK = """
import fcntl, sys, time
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("locked", flush=True)
    time.sleep(4)
"""


@pytest.fixture(scope="module")
def source(lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """The double repository, as declared."""
    directory = tmp_path_factory.mktemp("repository") / "double"
    built = build_repository(directory, PACKAGES, suite="trixie")
    with serving(directory, lan.gateway) as url:
        yield Repository("double", url, "trixie", ("stable",), built.fingerprint, f"{url}/gpg")


@pytest.fixture
def bare(machine: Machine) -> Iterator[Machine]:
    """The machine without the doubles, before and after."""
    machine.ssh(CLEAN)
    yield machine
    machine.ssh(CLEAN)


@pytest.fixture
def host(bare: Machine, source: Repository) -> Machine:
    """The machine with the double repository."""
    assert deploy(bare, _trust, source).succeeded
    return bare


def _trust(source: Repository) -> None:
    apt.repository(source, name="Trust the repository")


def _forget(source: Repository) -> None:
    apt.repository(source, present=False, name="Forget the repository")


def _install(*names: str) -> None:
    apt.packages(*names, name="Install packages")


def _pin(versions: Mapping[str, str]) -> None:
    apt.packages(*versions, versions=versions, hold=True, name="Pin packages")


def _unpin(*names: str) -> None:
    apt.packages(*names, hold=False, name="Unpin packages")


def _remove(*names: str) -> None:
    apt.packages(absent=names, name="Remove packages")


def _versions(machine: Machine) -> list[str]:
    """What is installed of the doubles, each with a mark if it is held."""
    query = "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n' 'double-*'"
    return machine.ssh(query, check=False).stdout.split("\n")[:-1]


def test_repository_is_trusted_by_its_fingerprint(bare: Machine, source: Repository) -> None:
    assert converge(bare, _trust, source).changed == ["Trust the repository"]
    assert bare.ssh("apt-get update -qq 2>&1 && apt-cache policy double-tool").stdout.count("2.0")
    assert converge(bare, _forget, source).changed == ["Forget the repository"]
    assert bare.ssh("ls /etc/apt/sources.list.d /etc/apt/keyrings").stdout.count("double") == 0


def test_repository_with_another_key_is_refused(bare: Machine, source: Repository) -> None:
    impostor = Repository("double", source.uri, "trixie", ("stable",), "A" * 40, source.key_url)
    outcome = deploy(bare, _trust, impostor)
    assert not outcome.succeeded
    assert source.fingerprint in outcome.output and "A" * 40 in outcome.output
    assert bare.ssh("ls /etc/apt/sources.list.d /etc/apt/keyrings").stdout.count("double") == 0


def test_vendored_key_of_another_is_refused(
    bare: Machine, source: Repository, tmp_path: Path
) -> None:
    other = build_repository(tmp_path / "other", [])
    changed = Repository(
        **{**source.__dict__, "key": other.key_path.read_bytes(), "key_url": f"{source.uri}/none"}
    )
    outcome = deploy(bare, _trust, changed)
    assert not outcome.succeeded and "could not be fetched" in outcome.output


def test_package_is_installed_though_there_are_no_lists(host: Machine) -> None:
    host.ssh("rm -rf /var/lib/apt/lists/*")
    assert converge(host, _install, "double-user").changed == ["Install packages"]
    assert host.ssh("double-tool").stdout == "2.0\n"


def test_sudo_is_enough(host: Machine) -> None:
    assert deploy(host, _install, "double-tool", sudo=True).changed == ["Install packages"]
    assert deploy(host, _install, "double-tool", sudo=True).changed == []


def test_unknown_package_is_named(host: Machine) -> None:
    outcome = deploy(host, _install, "double-tool", "double-nothing")
    assert not outcome.succeeded
    assert "No package source of this host offers: double-nothing" in outcome.output
    assert _versions(host) == []


def test_unknown_version_is_named(host: Machine) -> None:
    outcome = deploy(host, _pin, {"double-tool": "7.7"})
    assert not outcome.succeeded
    assert "No package source of this host offers: double-tool 7.7" in outcome.output


def test_pinned_version_is_installed_upwards_and_downwards(host: Machine) -> None:
    for version in ("1.0", "2.0", "1.0"):
        assert converge(host, _pin, {"double-tool": version}).changed == ["Pin packages"]
        assert _versions(host) == [f"hi  double-tool {version}"]
    host.ssh("apt-get -qy dist-upgrade")
    assert _versions(host) == ["hi  double-tool 1.0"]


def test_lifted_pin_lets_the_package_go(host: Machine) -> None:
    assert deploy(host, _pin, {"double-tool": "1.0"}).succeeded
    assert converge(host, _unpin, "double-tool").changed == ["Unpin packages"]
    assert _versions(host) == ["ii  double-tool 1.0"]


def test_edited_configuration_survives(host: Machine) -> None:
    assert deploy(host, _pin, {"double-tool": "2.0"}).succeeded
    host.ssh("echo mine > /etc/double-tool.conf")
    assert deploy(host, _pin, {"double-tool": "1.0"}).succeeded
    assert deploy(host, _pin, {"double-tool": "2.0"}).succeeded
    assert host.ssh("cat /etc/double-tool.conf").stdout == "mine\n"


def test_nothing_unnamed_is_removed(host: Machine) -> None:
    assert deploy(host, _install, "double-user").succeeded
    outcome = deploy(host, _remove, "double-tool")
    assert not outcome.succeeded and "would also remove double-user" in outcome.output
    assert len(_versions(host)) == 2
    assert converge(host, _remove, "double-user", "double-tool").changed == ["Remove packages"]
    assert host.ssh("command -v double-tool", check=False).returncode == 1


def test_killed_installation_is_finished(host: Machine) -> None:
    host.ssh("apt-get update -qq; touch /run/double-slow")
    host.ssh("systemd-run --collect --unit=killed apt-get -qy install double-slow")
    # The bracket keeps pgrep from finding the shell that it runs in.
    host.ssh("until pgrep -f '[d]ouble-slow.postinst'; do sleep 0.2; done", timeout=60)
    host.ssh("systemctl kill --signal=KILL killed.service; rm /run/double-slow")
    assert _versions(host) == ["iF  double-slow 1.0"]
    assert converge(host, _install, "double-slow").changed == ["Install packages"]
    assert _versions(host) == ["ii  double-slow 1.0"]


@pytest.mark.faults
def test_package_of_others_that_cannot_be_configured_stops_nothing(host: Machine) -> None:
    assert not deploy(host, _install, "double-broken").succeeded
    assert converge(host, _install, "double-tool").changed
    assert converge(host, _pin, {"double-tool": "1.0"}).changed
    assert converge(host, _remove, "double-tool").changed
    refused = deploy(host, _install, "double-broken")
    assert not refused.succeeded and "no module was built" in refused.output


@pytest.mark.parametrize("lock", ["/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock"])
def test_another_package_manager_is_waited_for(host: Machine, lock: str) -> None:
    host.ssh("touch /etc/apt/sources.list.d/double.sources; cat > /run/hold.py", input=HOLD_LOCK)
    host.ssh(f"systemd-run --collect python3 /run/hold.py {lock}; sleep 0.7")
    outcome = deploy(host, _install, "double-tool")
    assert outcome.changed == ["Install packages"], outcome.output


def _mixed(wanted: Sequence[str], absent: Sequence[str]) -> None:
    apt.packages(*wanted, absent=absent, name="Replace packages")


def test_replacement_happens_at_once(host: Machine) -> None:
    assert deploy(host, _install, "double-slow").succeeded
    outcome = converge(host, _mixed, ["double-tool"], ["double-slow"])
    assert outcome.changed == ["Replace packages"]
    assert _versions(host) == ["ii  double-tool 2.0"]
