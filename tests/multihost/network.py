"""Hosts that are network namespaces on one bridge, each with the interface `eth1`."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
INTERFACE = "eth1"


@dataclass(frozen=True)
class Place:
    """A host on the network."""

    namespace: str
    address: str

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """A command in its network."""
        inside = ["ip", "netns", "exec", self.namespace, *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=timeout)

    def check(self, *command: str) -> str:
        found = self.run(*command)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def reaches(self, address: str, ports: Sequence[int]) -> set[int]:
        """The ports that accept a connection within a second; all are tried at once."""
        told = self.check("python3", "-c", _PROBE, address, *map(str, ports))
        return {int(port) for port in told.split()}

    def listening(self) -> dict[int, set[str]]:
        """TCP ports with the addresses that processes listen at."""
        found: dict[int, set[str]] = {}
        for line in self.check("ss", "-Htln").splitlines():
            address, _, port = line.split()[3].rpartition(":")
            found.setdefault(int(port), set()).add(address)
        return found

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, are in its network."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            _enter(here)
            os.close(here)
            os.close(there)

    @contextmanager
    def listens(self, port: int) -> Iterator[None]:
        """Something accepts connections at a port."""
        with self.entered():
            listener = socket.create_server((self.address, port))
        with listener:
            yield

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """All packets from and to other hosts are dropped, without an answer to anybody."""
        rules = (("INPUT", "-i"), ("OUTPUT", "-o"))
        for chain, way in rules:
            self.check("iptables", "-I", chain, "1", way, INTERFACE, "-j", "DROP")
        try:
            yield
        finally:
            for chain, way in rules:
                self.check("iptables", "-D", chain, way, INTERFACE, "-j", "DROP")


_PROBE = """
import socket, sys, threading
address, *ports = sys.argv[1:]
def connect(port):
    try:
        socket.create_connection((address, int(port)), 1).close()
    except OSError:
        return
    reached.append(port)
reached = []
threads = [threading.Thread(target=connect, args=(port,)) for port in ports]
[each.start() for each in threads]
[each.join() for each in threads]
print(*reached)
"""


def _enter(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    assert library.setns(descriptor, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@contextmanager
def network(*names: str) -> Iterator[dict[str, Place]]:
    """Hosts of these names, with the addresses 10.9.0.1, 10.9.0.2, …"""
    prefix = f"lhg{os.getpid() % 100_000}"
    switch = f"{prefix}-switch"
    places = {
        name: Place(f"{prefix}-{name}", f"10.9.0.{number}")
        for number, name in enumerate(names, start=1)
    }
    with ExitStack() as stack:
        for namespace in (switch, *(place.namespace for place in places.values())):
            _ip("netns", "add", namespace)
            stack.callback(_ip, "netns", "del", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, place in enumerate(places.values()):
            port = f"port{number}"
            ends = (INTERFACE, "netns", place.namespace, "type", "veth", "peer", "name", port)
            _ip("link", "add", *ends, "netns", switch)
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            _ip("-n", place.namespace, "address", "add", f"{place.address}/24", "dev", INTERFACE)
            _ip("-n", place.namespace, "link", "set", INTERFACE, "up")
        yield places


def guard(place: Place, files: Sequence[tuple[str, bytes]], home: Path) -> None:
    """Load rules of ufw from these files, as ufw itself does at boot."""
    etc = home / "etc/ufw"
    etc.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", "/etc/ufw", str(etc)], check=True)
    (home / "etc/default").mkdir()
    for path, content in files:
        (home / path.lstrip("/")).write_bytes(content)
    loaded = place.run("/lib/ufw/ufw-init", "--datadir", str(home), "start")
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
