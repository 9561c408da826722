"""Test machines are real hosts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed import Client, Lan, Machine, MachineError
from testbed.process import run, wait_until

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(os.geteuid() != 0, reason="test machines need root"),
]


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with Lan.create("test-machines") as lan:
        yield lan


@pytest.fixture(scope="module")
def server(lan: Lan) -> Machine:
    return lan.machine("server")


@pytest.fixture(scope="module")
def client(lan: Lan) -> Client:
    return lan.client()


def boot_id(machine: Machine) -> str:
    return machine.ssh("cat /proc/sys/kernel/random/boot_id").stdout.strip()


def serve(machine: Machine) -> None:
    """Start a web server on port 8000, on IPv4 and IPv6, unless it runs."""
    machine.ssh(
        "systemctl is-active -q web || systemd-run -q --unit=web python3 -m http.server -b :: 8000"
    )
    assert wait_until(lambda: "8000" in machine.ssh("ss -Hltn").stdout, 10)


# --- A machine is a host of its own.


def test_machine_has_booted_without_failed_units(server: Machine) -> None:
    assert server.ssh("systemctl is-system-running").stdout == "running\n"
    assert server.ssh("hostname").stdout == "server\n"


_REACHES_THE_CONTROLLER = {
    "its clock": "date --set '+1 second'",
    "its clock's zone": "python3 -c 'import ctypes, struct;"
    " libc = ctypes.CDLL(None, use_errno=True);"
    ' raise SystemExit(libc.settimeofday(None, struct.pack("ii", 1, 0)) != 0)\'',
    "its kernel's log": "dmesg --clear",
    "its kernel's parameters": "sysctl -w vm.swappiness=61",
    "its kernel's modules": "python3 -c 'import ctypes; libc = ctypes.CDLL(None, use_errno=True);"
    ' libc.delete_module(b"none", 0); raise SystemExit(ctypes.get_errno() == 1)\'',
}


@pytest.mark.parametrize("what", _REACHES_THE_CONTROLLER)
def test_machine_cannot_change_its_controller(server: Machine, what: str) -> None:
    tried = server.ssh(_REACHES_THE_CONTROLLER[what], check=False)
    assert tried.returncode != 0, what


def test_setting_a_machines_time_zone_leaves_the_controllers_clock_alone(server: Machine) -> None:
    before = time.time()
    begun = time.monotonic()
    server.ssh("timedatectl set-timezone Asia/Seoul")
    assert abs((time.time() - before) - (time.monotonic() - begun)) < 1
    assert server.ssh("date +%z").stdout == "+0900\n"
    server.ssh("timedatectl set-timezone Etc/UTC")


def test_machines_differ_in_all_that_identifies_a_host(lan: Lan, server: Machine) -> None:
    other = lan.machine("other")
    for command in (
        "cat /etc/machine-id",
        "cat /etc/ssh/ssh_host_*_key.pub",
        "cat /sys/class/net/eth0/address",
        "cat /proc/sys/kernel/random/boot_id",
    ):
        assert server.ssh(command).stdout != other.ssh(command).stdout, command


def test_machines_can_be_made_at_the_same_time(lan: Lan) -> None:
    with ThreadPoolExecutor() as pool:
        machines = list(pool.map(lan.machine, ("left", "middle", "right")))
    assert len({machine.address for machine in machines}) == 3
    for machine in machines:
        assert machine.ssh("hostname").stdout == f"{machine.name}\n"
        machine.destroy()


def test_ssh_accepts_only_the_host_key_that_was_made_for_the_machine(server: Machine) -> None:
    argv = ["ssh", "-F", str(server.ssh_config), "-oControlPath=none", "server", "true"]
    assert run(argv, check=False).returncode == 0
    stranger = run([*argv[:3], "-oUserKnownHostsFile=/dev/null", *argv[3:]], check=False)
    assert "Host key verification failed" in stranger.stderr


def test_operator_becomes_root_by_sudo_without_a_password(server: Machine) -> None:
    assert server.ssh("id -un; sudo -n id -un", user="operator").stdout == "operator\nroot\n"


def test_failed_command_raises_with_what_it_said(server: Machine) -> None:
    with pytest.raises(MachineError, match="no such luck"):
        server.ssh("echo no such luck >&2; false")
    assert server.ssh("false", check=False).returncode == 1


def test_machine_installs_packages_and_the_next_one_need_not_fetch_them(lan: Lan) -> None:
    first = lan.machine("first")
    first.ssh("apt-get update -qq && apt-get install -qq --no-install-recommends tree")
    first.destroy()
    second = lan.machine("second")
    second.ssh("apt-get update -qq && apt-get install -qq --no-download tree")


def test_container_engines_find_a_plain_file_system(server: Machine) -> None:
    kinds = server.ssh("stat -f -c %T / /var/lib/docker /var/lib/containerd").stdout.split()
    assert kinds[0] == "overlayfs"
    assert "overlayfs" not in kinds[1:]


# --- The LAN is seen from outside, under other addresses than the controller's.


@pytest.mark.parametrize("version", ["-4", "-6"])
def test_client_reaches_the_machine_by_name(server: Machine, client: Client, version: str) -> None:
    serve(server)
    client.run(["curl", "-sSf", version, "http://server:8000/"], timeout=10)
    expected = client.address if version == "-4" else client.address6
    assert expected in server.ssh("journalctl -q -u web -n 1").stdout


def test_packets_dropped_by_the_machine_do_not_reach_it(server: Machine, client: Client) -> None:
    serve(server)
    server.ssh("apt-get update -qq && apt-get install -qq --no-install-recommends nftables")
    server.ssh(
        "nft add table inet t && nft 'add chain inet t in { type filter hook input priority 0; }'"
        f" && nft add rule inet t in ip saddr {client.address} tcp dport 8000 drop"
    )
    request = ["curl", "-sS", "-m", "2", f"http://{server.address}:8000/"]
    assert client.run(request, check=False).returncode == 28, "timed out"
    assert run(request, check=False).returncode == 0, "the controller is not dropped"
    server.ssh("nft delete table inet t")
    assert client.run(request, check=False).returncode == 0


# --- Power.


def test_reboot_loses_what_only_memory_holds(server: Machine) -> None:
    before = boot_id(server)
    server.ssh("touch /run/volatile /root/kept && ip address add 198.51.100.1/32 dev lo")
    server.reboot()
    assert boot_id(server) != before
    assert server.ssh("ls /run/volatile", check=False).returncode != 0
    assert "198.51.100.1" not in server.ssh("ip address").stdout
    server.ssh("ls /root/kept")


def test_machine_comes_back_when_anything_in_it_reboots_it(server: Machine) -> None:
    before = boot_id(server)
    server.ssh("systemctl reboot", check=False)
    ask = ["ssh", "-F", str(server.ssh_config), "-oControlPath=none", "server"]
    after = [*ask, "cat /proc/sys/kernel/random/boot_id"]
    assert wait_until(lambda: run(after, check=False).stdout.strip() not in {"", before}, 30)
    assert server.is_running


def test_killed_machine_answers_nobody_until_it_is_started(server: Machine) -> None:
    server.ssh("echo important >/root/data && sync")
    server.kill()
    assert not server.is_running
    assert server.ssh("true", check=False, timeout=20).returncode == 255
    server.start()
    assert server.ssh("cat /root/data").stdout == "important\n"


def test_destroyed_machine_makes_room_for_another_of_its_name(lan: Lan) -> None:
    first = lan.machine("again")
    first.ssh("touch /root/trace")
    with pytest.raises(MachineError, match="already has a host named again"):
        lan.machine("again")
    first.destroy()
    assert lan.machine("again").ssh("ls /root").stdout == ""


# --- The other kind.


@pytest.mark.vm
def test_virtual_machine_has_its_own_kernel_and_loses_unwritten_data(lan: Lan) -> None:
    machine = lan.machine("virtual", kind="vm")
    assert "cloud" in machine.ssh("uname -r").stdout
    assert "memory" in machine.ssh("cat /sys/fs/cgroup/cgroup.controllers").stdout
    lan.client("vm-client").run(["ssh-keyscan", "-T", "20", machine.address6], timeout=30)
    machine.ssh("echo kept >/root/written && sync && echo lost >/root/unwritten")
    machine.kill()
    machine.start()
    assert machine.ssh("ls /root").stdout == "written\n"
    machine.reboot()
    assert machine.ssh("cat /root/written").stdout == "kept\n"
    machine.destroy()
