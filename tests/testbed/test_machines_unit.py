"""What can be told about test machines without making one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from testbed import disk
from testbed.network import Network, reaches
from testbed.process import MachineError, ProcessId, run, wait_until
from testbed.registry import HostRecord, LanRecord
from testbed.ssh import Endpoint, SshAccess
from tests.programs import running


def test_interface_names_fit_the_kernels_limit() -> None:
    last = Network(255)
    assert len(last.port(254)) <= 15
    assert len(last.bridge) <= 15


def test_lans_share_no_address_and_no_name() -> None:
    lans = [Network(index) for index in range(256)]
    names = {name for lan in lans for name in (lan.bridge, lan.port(10), lan.mac(10))}
    assert len(names) == 3 * 256
    assert len({lan.address6(10) for lan in lans}) == 256
    assert not lans[0].subnet.overlaps(lans[1].subnet)


def test_addresses_are_private() -> None:
    assert IPv4Address(Network(7).address(10)).is_private
    assert IPv6Address(Network(7).address6(10)).is_private


@pytest.mark.parametrize(
    ("route", "in_the_way"),
    [
        ("10.231.4.0/24", True),
        ("10.231.4.7", True),
        ("10.0.0.0/8", True),
        ("10.231.5.0/24", False),
        ("default", False),
        ("0.0.0.0/1", False),
    ],
)
def test_subnet_that_a_route_uses_counts_as_taken(route: str, in_the_way: bool) -> None:
    assert reaches(route, Network(4).subnet) is in_the_way


def test_process_that_got_a_recorded_pid_later_is_left_alone() -> None:
    with running(["sleep", "60"]) as child:
        identity = ProcessId.of(child.pid)
        for other in (
            ProcessId(child.pid, identity.started - 1, identity.boot),
            ProcessId(child.pid, identity.started, "the boot before"),
        ):
            assert not other.alive()
            other.send(signal.SIGKILL)
        assert identity.alive()
        identity.send(signal.SIGKILL)
        assert identity.wait(5)


def test_command_that_is_interrupted_takes_its_children_along(tmp_path: Path) -> None:
    script = f"sleep 61.5 & echo $! >{tmp_path}/pid; wait"
    with pytest.raises(subprocess.TimeoutExpired):
        run(["sh", "-c", script], timeout=0.5)
    process = Path("/proc", (tmp_path / "pid").read_text().strip())
    assert wait_until(lambda: not process.exists(), 10), "it was killed, and nobody keeps it"


def test_failure_says_which_command_and_what_it_printed() -> None:
    with pytest.raises(MachineError, match=r"(?s)`sh -c .*` ended with 3:\nwhy"):
        run(["sh", "-c", "echo why >&2; exit 3"])


def test_output_that_is_not_utf8_does_not_break_the_caller() -> None:
    assert run([sys.executable, "-c", "import os; os.write(1, bytes([255]))"]).stdout == "\ufffd"


def test_lan_is_abandoned_when_its_owner_is_gone(tmp_path: Path) -> None:
    me = ProcessId.of(os.getpid())
    assert not LanRecord("mine", 0, tmp_path, me).abandoned
    gone = ProcessId(me.pid, me.started + 1, me.boot)
    assert LanRecord("orphan", 0, tmp_path, gone).abandoned
    assert not LanRecord("detached", 0, tmp_path, None).abandoned
    assert LanRecord("deleted", 0, tmp_path / "deleted", None).abandoned


@pytest.mark.parametrize("name", ["", "-a", "a-", "UPPER", "dot.ted", "sp ace", "a" * 64])
def test_name_that_is_no_host_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="is no host name"):
        LanRecord("lan", 0, tmp_path, None).add(HostRecord(name, "client", 0))


def test_ssh_finds_a_machine_by_its_name_only_in_the_written_config(tmp_path: Path) -> None:
    access = SshAccess(tmp_path / "with space", Path("/run/sockets"))
    access.directory.mkdir()
    key = "ssh-ed25519 AAAA"
    access.write_config([Endpoint("one", ("10.0.0.1", "fd00::1"), key)])
    effective = run(["ssh", "-G", "-F", str(access.config), "one"]).stdout.splitlines()
    for line in (
        "hostname 10.0.0.1",
        "user root",
        "port 22",
        "stricthostkeychecking true",
        f"identityfile {access.identity}",
        "controlpath /run/sockets/one.root",
        "controlpersist 60",
    ):
        assert line in effective
    known_hosts = access.directory / "known_hosts"
    assert known_hosts.read_text() == "one,10.0.0.1,fd00::1 ssh-ed25519 AAAA\n"


@pytest.mark.parametrize(
    ("controller", "machine"),
    [
        ("nameserver 192.0.2.53\nsearch example\n", "nameserver 192.0.2.53\n"),
        ("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "nameserver 192.0.2.1\n"),
    ],
)
def test_machine_gets_only_name_servers_that_it_can_reach(
    controller: str, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resolv.conf").write_text(controller)
    monkeypatch.setattr(disk, "RESOLVER_FILES", (str(tmp_path / "resolv.conf"),))
    assert disk.name_servers() == machine


def test_lack_of_a_usable_name_server_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "RESOLVER_FILES", (str(tmp_path / "missing"),))
    with pytest.raises(MachineError, match="no name server"):
        disk.name_servers()
