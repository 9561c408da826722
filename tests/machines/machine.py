"""What a machine can do, whichever kind it is."""

from __future__ import annotations

import socket
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

from tests.machines.disk import Disk
from tests.machines.process import MachineError, ProcessId, run, spawn
from tests.machines.registry import HostRecord, LanRecord
from tests.machines.ssh import Endpoint, SshAccess, public_key

SUPERVISOR = Path(__file__).with_name("supervisor.py")


class Machine(ABC):
    """A host of its own: system, disk, addresses, sshd."""

    kernel = False
    """Whether its root file system needs a kernel of its own."""
    boot_seconds = 60.0
    """After this time a machine that does not answer has failed to boot."""

    def __init__(self, lan: LanRecord, host: HostRecord, access: SshAccess) -> None:
        self._lan = lan
        self._host = host
        self._access = access
        self._network = lan.network
        self._disk = Disk(lan.state / "machines" / host.name, Path(host.lower))

    @property
    def name(self) -> str:
        return self._host.name

    @property
    def address(self) -> str:
        """Its IPv4 address on the LAN."""
        return self._network.address(self._host.number)

    @property
    def address6(self) -> str:
        """Its IPv6 address on the LAN, a unique local one."""
        return self._network.address6(self._host.number)

    @property
    def ssh_config(self) -> Path:
        """An ssh_config(5) file in which this machine's name is an alias."""
        return self._access.config

    @property
    def console(self) -> Path:
        """What the machine printed on its console."""
        return self._disk.directory / "console.log"

    @property
    def is_running(self) -> bool:
        return self._host.process is not None and self._host.process.alive()

    def ssh(
        self,
        command: str,
        *,
        user: str | None = None,
        input: str | None = None,
        timeout: float | None = 600,
        check: bool = True,
    ) -> CompletedProcess[str]:
        """Run a shell command on the machine, as root unless ``user`` says otherwise.

        Raises MachineError when it fails and ``check`` is set, subprocess.TimeoutExpired when it
        takes longer than ``timeout`` seconds.
        """
        return self._access.run(
            self.name, command, user=user, input=input, timeout=timeout, check=check
        )

    def start(self) -> None:
        """Switch it on and wait until it has booted; nothing to do if it runs."""
        if self.is_running:
            return
        self._clear()
        self._power_on()
        self._lan.save()
        self.wait_until_ready()

    def stop(self) -> None:
        """Shut it down in an orderly way."""
        if self._host.process and self.is_running:
            self._request_shutdown()
            self._host.process.wait(30)
        self.kill()

    def kill(self) -> None:
        """Take its power away: no process of it gets to run another instruction."""
        self._power_off()
        self._host.process = None
        self._clear()
        self._lan.save()

    def reboot(self) -> None:
        """Reboot from inside, as an administrator would, and wait until it is back."""
        before = self._boot_id()
        self.ssh("systemctl reboot", check=False, timeout=30)
        self._access.hang_up()
        self.wait_until_ready(other_than=before)

    def destroy(self) -> None:
        """Switch it off and remove its disk."""
        self.kill()
        self._disk.collect_packages(self._host.suite)
        run(["rm", "-rf", "--one-file-system", str(self._disk.directory)])

    def create_disk(self) -> None:
        """Make its disk; to be called once."""
        self._disk.directory.mkdir(parents=True)
        self._disk.lend_packages(self._host.suite)
        self._disk.mount()
        self._disk.individualise(self.name, public_key(self._access.identity))
        self._furnish()

    def endpoint(self) -> Endpoint:
        addresses = (self.address, self.address6)
        return Endpoint(self.name, addresses, self._disk.public_host_key())

    def wait_until_ready(self, other_than: str = "") -> None:
        """Wait until sshd answers and systemd has started everything, without a failed unit.

        ``other_than`` is the id of a boot that does not count.
        """
        deadline = time.monotonic() + self.boot_seconds
        while time.monotonic() < deadline:
            if not self.is_running:
                raise MachineError(f"{self.name} ended while booting:\n{self._console_tail()}")
            if self._answers() and (current := self._boot_id()) and current != other_than:
                return self._check_state()
            time.sleep(0.05)
        raise MachineError(
            f"{self.name} did not boot in {self.boot_seconds:.0f} s:\n{self._console_tail()}"
        )

    def _boot_id(self) -> str:
        reply = self.ssh("cat /proc/sys/kernel/random/boot_id", check=False, timeout=20)
        return reply.stdout.strip()

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.address, 22), 1) as connection:
            connection.settimeout(1)
            return connection.recv(4) == b"SSH-"
        return False

    def _check_state(self) -> None:
        state = self.ssh("systemctl is-system-running --wait", check=False).stdout.strip()
        if state != "running":
            failed = self.ssh("systemctl --failed --no-legend --plain", check=False).stdout
            raise MachineError(f"{self.name} booted, but it is {state}:\n{failed}")

    def _console_tail(self) -> str:
        lines = self.console.read_text(errors="replace").splitlines()
        return "\n".join(lines[-20:])

    def _supervise(self, spec: Path) -> None:
        """Start the supervisor with this specification."""
        self._host.process = spawn([sys.executable, str(SUPERVISOR), str(spec)], self.console)

    @property
    def _process(self) -> ProcessId | None:
        return self._host.process

    @abstractmethod
    def _furnish(self) -> None:
        """Write what this kind of machine needs on its disk, which is mounted."""

    @abstractmethod
    def _power_on(self) -> None:
        """Start it, and remember its process in the record."""

    @abstractmethod
    def _request_shutdown(self) -> None:
        """Press the power button."""

    @abstractmethod
    def _power_off(self) -> None:
        """End all its processes, at once; nothing to do if there are none."""

    @abstractmethod
    def _clear(self) -> None:
        """Remove the namespaces, mounts and devices that a run of it leaves behind."""
