"""A LAN of test machines on this controller, from creation to removal."""

from __future__ import annotations

import os
import uuid
import warnings
from pathlib import Path
from types import TracebackType

from testbed.apt import default_suite
from testbed.client import Client
from testbed.controller import install_requirements, prepare_controller, restore_controller
from testbed.lifetime import Termination, uninterrupted
from testbed.machine import Machine
from testbed.nspawn import NspawnMachine
from testbed.process import MachineError, ProcessId, run
from testbed.registry import HostRecord, LanRecord, allocate, find, locked, records
from testbed.rootfs import cache, root_file_system
from testbed.ssh import SshAccess
from testbed.vm import VirtualMachine

_KINDS: dict[str, type[NspawnMachine] | type[VirtualMachine]] = {
    "nspawn": NspawnMachine,
    "vm": VirtualMachine,
}
_SOCKETS = Path("/run/llmhost-lans")

DOCKER_VOLUMES = ("/var/lib/docker", "/var/lib/containerd")
"""On plain directories, because overlayfs, and so Docker's overlay2, does not work on an
overlay."""


class Lan:
    """A bridge with machines and clients. A context manager removes it at the end of its block,
    unless it is detached.
    """

    def __init__(self, record: LanRecord) -> None:
        self._record = record
        self._access = SshAccess(record.state / "ssh", _SOCKETS / str(record.index))
        self._termination = Termination()

    @classmethod
    def create(cls, name: str, state: Path | None = None, *, detached: bool = False) -> Lan:
        """A new, empty LAN.

        ``state`` is the directory of its disks, keys and logs, by default below the cache. A
        detached LAN remains after this process: `Lan.open` finds it by its ``state``.
        """
        if detached and state is None:
            raise MachineError(
                "a detached LAN requires a state directory, by which it is found again"
            )
        directory = state or cache() / "lans" / f"{name}-{uuid.uuid4().hex[:8]}"
        if directory.exists() and any(directory.iterdir()):
            # destroy() removes the directory, so it must not contain anything else.
            raise MachineError(f"{directory} is not empty: a LAN needs its own directory")
        owner = None if detached else ProcessId.of(os.getpid())
        with Termination():
            install_requirements()
            collect_garbage()
            directory.mkdir(parents=True, exist_ok=True)
            record = allocate(name, directory.resolve(), owner)
            try:
                lan = cls(record)
                lan.up()
            except BaseException:
                cls(record).destroy()
                raise
        return lan

    @classmethod
    def open(cls, state: Path) -> Lan:
        """The detached LAN with this state directory.

        After the controller rebooted they are off: `Machine.start` switches them on again.
        """
        lan = cls(find(state))
        lan.up()
        for host in [*lan._record.hosts.values()]:
            if not host.complete:  # its creator was killed
                lan._host(host).destroy()
        return lan

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def gateway(self) -> str:
        """The address of the controller on the LAN."""
        return self._record.network.gateway

    @property
    def gateway6(self) -> str:
        return self._record.network.gateway6

    @property
    def subnet(self) -> str:
        return str(self._record.network.subnet)

    @property
    def ssh_config(self) -> Path:
        """An ssh_config(5) file with every machine of the LAN."""
        return self._access.config

    @property
    def machines(self) -> dict[str, Machine]:
        """All machines that are complete, by name."""
        hosts = (self._host(host) for host in [*self._record.hosts.values()] if host.complete)
        return {host.name: host for host in hosts if isinstance(host, Machine)}

    @property
    def clients(self) -> dict[str, Client]:
        """All clients, by name."""
        hosts = (self._host(host) for host in [*self._record.hosts.values()])
        return {host.name: host for host in hosts if isinstance(host, Client)}

    def up(self) -> None:
        """Create the network and the clients, as far as they are missing."""
        prepare_controller()
        self._record.network.up()
        self._access.prepare()
        for client in self.clients.values():
            client.start()

    def machine(
        self,
        name: str,
        *,
        kind: str = "nspawn",
        suite: str | None = None,
        volumes: tuple[str, ...] = (),
        minimal: bool = False,
        kernel_options: str = "",
    ) -> Machine:
        """A new machine, booted and reachable by SSH.

        ``kind`` is "nspawn" or "vm". ``suite`` names the distribution's release. ``volumes`` are
        directories of an nspawn machine that must not be on an overlay, in addition to Docker's. A
        ``minimal`` machine has only the packages that a login needs. ``kernel_options`` extend the
        command line of a "vm"'s kernel.
        """
        if kind not in _KINDS:
            raise MachineError(f"there is no kind of machine {kind}: use one of {[*_KINDS]}")
        if kernel_options and kind != "vm":
            raise MachineError('kernel_options require kind="vm": others have no kernel')
        if kind == "vm":
            install_requirements(vm=True)
        suite = suite or default_suite()
        lower = root_file_system(suite, kernel=_KINDS[kind].kernel, minimal=minimal)
        plain = [*DOCKER_VOLUMES, *volumes] if kind == "nspawn" else []
        host = self._record.add(HostRecord(name, kind, 0, suite, str(lower), plain, complete=False))
        machine = _KINDS[kind](self._record, host, self._access)
        try:
            machine.create_disk()
            if isinstance(machine, VirtualMachine):
                machine.set_kernel_options(kernel_options)
            self._introduce()
            machine.start()
        except BaseException:
            with uninterrupted():
                machine.destroy()
            raise
        return machine

    def client(self, name: str = "client") -> Client:
        """A new client, which runs programs from its own address."""
        client = Client(self._record, self._record.add(HostRecord(name, "client", 0)))
        client.start()
        self._introduce()
        return client

    def destroy(self) -> None:
        """Remove the LAN and everything on it. May be repeated."""
        with uninterrupted():
            self._access.hang_up()
            for host in [*self._record.hosts.values()]:
                self._host(host).destroy()
            self._record.network.down()
            for directory in (self._record.state, self._access.sockets):
                run(["rm", "-rf", "--one-file-system", str(directory)])
            with locked():
                self._record.forget()
                restore_controller()

    def __enter__(self) -> Lan:
        self._termination.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._record.owner:
                self.destroy()
        finally:
            self._termination.__exit__()

    def _host(self, host: HostRecord) -> Machine | Client:
        if host.kind == "client":
            return Client(self._record, host)
        return _KINDS[host.kind](self._record, host, self._access)

    def _introduce(self) -> None:
        """Update the ssh_config, and the clients' hosts files."""
        machines = self.machines.values()
        self._access.write_config(machine.endpoint() for machine in machines)
        names = (f"{address} {m.name}\n" for m in machines for address in (m.address, m.address6))
        hosts = "127.0.0.1 localhost\n::1 localhost\n" + "".join(names)
        for client in self.clients.values():
            client.introduce(hosts)


def collect_garbage() -> list[str]:
    """Remove abandoned LANs; returns their names."""
    removed = []
    with locked():
        for record in records():
            if record.abandoned:
                try:
                    Lan(record).destroy()
                    removed.append(record.name)
                except MachineError as error:  # not a reason to fail for a caller that wants a LAN
                    warnings.warn(f"the abandoned LAN {record.name} stays: {error}", stacklevel=2)
    return removed
