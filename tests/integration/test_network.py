"""A host's own address under real pyinfra: a good change stays, a bad one undoes itself.

One machine serves all tests, in the order of the file; its addresses are networkd's, then
netplan's. The controller is on the LAN, so it can follow wherever the network is the LAN's.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.tasks.lock import lock_host
from llmhost.tasks.network import configure_network
from testbed import Lan, Machine
from tests.integration.harness import Outcome, deploy

pytestmark = pytest.mark.machines

ADDRESSES = "Network | Give the host its addresses"
CONFIRM_SECONDS = 10

# The machine has no udev; without its word on a link, networkd leaves the link alone
# (sd_device_get_is_initialized in systemd's src/libsystemd/sd-device).
MANAGED = """
set -e
echo 'f+ /run/udev/data/n2 - - - - I:1' >/etc/tmpfiles.d/udev.conf
systemd-tmpfiles --create /etc/tmpfiles.d/udev.conf
printf '[Match]\\nName=eth0\\n[Network]\\nAddress=%s/24\\nAddress=%s/64\\nGateway=%s\\n' {} \
    >/etc/systemd/network/10-site.network
systemctl enable --quiet --now systemd-networkd
until networkctl list eth0 | grep -q configured; do sleep 0.1; done
"""


def _configure(data: dict[str, Any]) -> None:
    settings = read_settings(data)
    # As deploy.py does: a connection whose address goes away must not hold the host for ever.
    lock_host(settings=settings)
    configure_network(settings=settings)


@dataclass
class Mover:
    """A machine whose address changes, and where it is now."""

    machine: Machine
    gateway: str
    address: str
    directory: Path

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def ssh_config(self) -> Path:
        """The machine's, with the present address."""
        text = self.machine.ssh_config.read_text()
        path = self.directory / "ssh_config"
        moved = text.replace(f"HostName {self.machine.address}\n", f"HostName {self.address}\n")
        moved = moved.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking accept-new")
        path.write_text(re.sub(r"ControlPath .*", "ControlPath none", moved))
        return path

    def other(self, number: int) -> str:
        """Another address of the LAN."""
        return f"{self.machine.address.rpartition('.')[0]}.{number}"

    def data(self, address: str, **more: Any) -> dict[str, Any]:
        return {
            "network_addresses": [f"{address}/24", f"{self.machine.address6}/64"],
            "network_gateways": [self.gateway],
            "network_dns": [],
            "network_confirm_seconds": CONFIRM_SECONDS,
            **more,
        }

    def deploy(self, data: dict[str, Any], *, dry: bool = False, sudo: bool = False) -> Outcome:
        # Of a machine, deploy looks at name and ssh_config only.
        return deploy(cast(Machine, self), _configure, data, dry=dry, sudo=sudo)

    def ssh(self, command: str, *, check: bool = True) -> str:
        argv = ["ssh", "-F", str(self.ssh_config), self.name, command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def session(self) -> "subprocess.Popen[str]":
        """A connection that was opened earlier, and says something every tenth of a second."""
        talk = "for i in $(seq 600); do echo $i || exit; sleep 0.1; done"
        argv = ["ssh", "-F", str(self.ssh_config), self.name, talk]
        session = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert session.stdout and session.stdout.readline() == "1\n"
        return session

    @property
    def live(self) -> set[str]:
        """The interface's addresses."""
        return set(self.ssh("ip -o address show dev eth0 scope global | awk '{print $4}'").split())

    @property
    def shown(self) -> str:
        """What the interface and the files are like."""
        return self.ssh(
            "ip -o address show dev eth0 scope global | awk '{print $4}'; ip route show default;"
            " cd /etc; ls systemd/network netplan 2>/dev/null;"
            " cat systemd/network/* netplan/* 2>/dev/null || true"
        )


@pytest.fixture(scope="module")
def mover(lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mover]:
    machine = lan.machine("mover")
    machine.ssh(MANAGED.format(f"{machine.address} {machine.address6} {lan.gateway}"))
    yield Mover(machine, lan.gateway, machine.address, tmp_path_factory.mktemp("ssh"))
    machine.destroy()


def assert_converged(mover: Mover, data: dict[str, Any]) -> None:
    for dry in (False, True):
        again = mover.deploy(data, dry=dry)
        assert again.succeeded and again.changed == [], again.output


def test_address_in_use_stays_and_so_do_its_connections(mover: Mover) -> None:
    data = mover.data(mover.address, network_hosts={"db": "192.0.2.9"}, network_hostname="moved")
    with mover.session() as session:
        outcome = mover.deploy(data)
        assert outcome.succeeded, outcome.output
        assert ADDRESSES in outcome.changed and "connections to" not in outcome.output
        assert session.stdout and session.poll() is None
        said = int(session.stdout.readline())
        mover.ssh("sleep 0.3")
        assert int(session.stdout.readline()) > said
        session.kill()
    assert "192.0.2.9" in mover.ssh("getent hosts db")
    assert mover.ssh("uname -n; cat /etc/hostname; getent hosts moved").split()[:2] == ["moved"] * 2
    assert_converged(mover, data)


def assert_undone(mover: Mover, data: dict[str, Any]) -> None:
    before, began = mover.shown, time.monotonic()
    outcome = mover.deploy(data)
    assert not outcome.succeeded
    assert "the host has undone the change" in outcome.output, outcome.output
    assert time.monotonic() - began < CONFIRM_SECONDS + 30
    assert mover.shown == before
    assert ADDRESSES in mover.deploy(data, dry=True).changed


def elsewhere(mover: Mover, **more: Any) -> dict[str, Any]:
    """A network that the controller is not on."""
    data = mover.data("198.51.100.5", network_gateways=["198.51.100.1"], **more)
    return {**data, "network_addresses": ["198.51.100.5/24"]}


def test_network_that_the_controller_can_not_reach_is_undone(mover: Mover) -> None:
    assert_undone(mover, elsewhere(mover))


def test_reboot_ends_a_trial(mover: Mover) -> None:
    """The controller lost its power in the middle, and then the host."""
    before = mover.shown
    with ThreadPoolExecutor() as pool:
        running: Any = pool.submit(mover.deploy, elsewhere(mover, network_confirm_seconds=600))
        while answers(mover.address):
            assert not running.done(), running.result().output
            time.sleep(0.1)
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        assert not running.result().succeeded
    mover.machine.kill()
    mover.machine.start()
    # It may have started ahead of what stands in for udev, see MANAGED.
    mover.ssh(
        "systemctl restart systemd-networkd;"
        " until networkctl list eth0 | grep -q configured; do sleep 0.1; done"
    )
    assert mover.shown == before


def answers(address: str) -> bool:
    """Whether somebody has the address: a closed port is refused there. sshd is not asked, as it
    shuts out who knocks often and says nothing."""
    try:
        socket.create_connection((address, 1), 1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def children() -> list[int]:
    """pyinfra's processes that this one started."""
    command = ["pgrep", "-P", str(os.getpid()), "-f", "inventory.py deploy.py"]
    found = subprocess.run(command, capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def test_machine_with_another_host_key_is_not_believed(mover: Mover, lan: Lan) -> None:
    """It has the new address, and lets the controller in."""
    impostor = lan.machine("impostor")
    try:
        mac = impostor.ssh("cat /sys/class/net/eth0/address").stdout.strip()
        bridge = f"lh{lan.subnet.split('.')[2]}"
        held = ["ip", "neigh", "replace", impostor.address, "lladdr", mac, "dev", bridge]
        subprocess.run([*held, "nud", "permanent"], check=True)
        assert_undone(mover, mover.data(impostor.address))
    finally:
        subprocess.run(["ip", "neigh", "delete", impostor.address, "dev", bridge], check=True)
        impostor.destroy()


def use_netplan(mover: Mover) -> None:
    """As Ubuntu's installer leaves a host with a static address; udev, which netplan speaks to, is
    not on this machine."""
    body = {"addresses": sorted(mover.live), "mtu": 1400}
    body["routes"] = [{"to": "default", "via": mover.gateway}]
    content = json.dumps({"network": {"version": 2, "ethernets": {"eth0": body}}})
    mover.ssh(
        "set -e; export DEBIAN_FRONTEND=noninteractive; apt-get update -qq;"
        " apt-get install -y -qq --no-install-recommends netplan.io >/dev/null 2>&1;"
        " ln -sf /bin/true /usr/bin/udevadm;"
        f" umask 077; mkdir -p /etc/netplan; echo '{content}' >/etc/netplan/50-cloud-init.yaml;"
        " rm /etc/systemd/network/*.network; netplan apply"
    )


@pytest.mark.parametrize(
    "renderer", ["networkd", pytest.param("netplan", marks=pytest.mark.flavours)]
)
def test_changed_address_is_followed_and_kept(mover: Mover, renderer: str) -> None:
    if renderer == "netplan":
        use_netplan(mover)
        assert_undone(mover, elsewhere(mover))
    old, new = mover.address, mover.other(201 if renderer == "networkd" else 202)
    with mover.session() as session:
        outcome = mover.deploy(mover.data(new), sudo=True)
        session.kill()
    assert outcome.succeeded, outcome.output
    assert f"connections to {old} will end; the deploy continues at {new}" in outcome.output
    assert f"address is now {new}: set its ssh_hostname" in outcome.output
    mover.address = new
    assert mover.live == {f"{new}/24", f"{mover.machine.address6}/64"}
    assert mover.gateway in mover.ssh("ip route show default")
    assert_converged(mover, mover.data(new))


def test_address_that_was_taken_away_comes_back(mover: Mover) -> None:
    mover.ssh(f"ip address delete {mover.machine.address6}/64 dev eth0")
    outcome = mover.deploy(mover.data(mover.address))
    assert ADDRESSES in outcome.changed and "eth0 lacks fd" in outcome.output
    assert mover.live == {f"{mover.address}/24", f"{mover.machine.address6}/64"}


def test_name_servers_are_declared_where_the_host_looks(mover: Mover) -> None:
    data = mover.data(mover.address, network_dns=["192.0.2.53"], network_search_domains=["lan"])
    mover.ssh("cp -p /etc/resolv.conf /root")
    assert "Network | Use the declared name servers" in mover.deploy(data).changed
    asked = mover.ssh("grep -v '^#' /etc/resolv.conf")
    assert asked == "nameserver 192.0.2.53\nsearch lan\n"
    assert_converged(mover, data)
    mover.ssh("cp -p /root/resolv.conf /etc; ln -sf /run/other/resolv.conf /etc/resolv.conf")
    refused = mover.deploy(data)
    assert not refused.succeeded and "which another program writes" in refused.output


def test_interface_of_ifupdown_is_refused_and_left(mover: Mover) -> None:
    mover.ssh(
        "set -e; rm -rf /etc/netplan; mkdir -p /etc/network; ip link add old0 type veth;"
        " echo 'iface old0 inet manual' >>/etc/network/interfaces"
    )
    before = mover.shown
    outcome = mover.deploy({**mover.data(mover.address), "network_interface": "old0"})
    assert not outcome.succeeded and "old0 is configured by ifupdown" in outcome.output
    assert mover.shown == before
