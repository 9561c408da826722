"""Waits until a machine has booted, and reports why if it has not."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from testbed.process import MachineError
from testbed.registry import HostRecord
from testbed.ssh import Endpoint, SshAccess


@dataclass(frozen=True)
class BootWatch:
    """Watches one machine by SSH."""

    access: SshAccess
    endpoint: Endpoint
    console: Path
    host: HostRecord
    seconds: float
    """Maximum time of a boot."""

    def wait_until_up(self, other_than: str = "") -> None:
        """Wait until sshd answers and systemd has started everything, without a failed unit.

        ``other_than`` is the id of a boot that does not count. Raises MachineError with the end of
        the console, or with the failed units.
        """
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            if self.host.process is None or not self.host.process.alive():
                raise MachineError(f"{self.host.name} ended while booting:\n{self._tail()}")
            if self._answers() and (current := self.boot_id()) and current != other_than:
                return self._require_running()
            time.sleep(0.05)
        text = f"{self.host.name} did not boot in {self.seconds:.0f} s:\n{self._tail()}"
        raise MachineError(text)

    def boot_id(self) -> str:
        """The id of the machine's current boot; empty if it does not answer.

        It uses a new connection: an open one may be to a system that is shutting down.
        """
        command = "cat /proc/sys/kernel/random/boot_id"
        # A login waits for logind, which starts late on an emulated machine: try again then.
        with suppress(subprocess.TimeoutExpired):
            reply = self.access.run(self.host.name, command, fresh=True, check=False, timeout=20)
            return reply.stdout.strip()
        return ""

    def _answers(self) -> bool:
        address = (self.endpoint.addresses[0], 22)
        with suppress(OSError), socket.create_connection(address, 1) as connection:
            connection.settimeout(1)
            return connection.recv(4) == b"SSH-"
        return False

    def _require_running(self) -> None:
        waiting = "systemctl is-system-running --wait"
        reply = self.access.run(self.host.name, waiting, check=False, timeout=self.seconds)
        if (state := reply.stdout.strip()) != "running":
            units = "systemctl --failed --no-legend --plain"
            failed = self.access.run(self.host.name, units, check=False).stdout
            raise MachineError(f"{self.host.name} booted, but it is {state}:\n{failed}")

    def _tail(self) -> str:
        return "\n".join(self.console.read_text(errors="replace").splitlines()[-20:])
