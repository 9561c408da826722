"""A test machine of any kind."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from subprocess import CompletedProcess

from testbed.boot import BootWatch
from testbed.cgroup import Cgroup
from testbed.disk import Disk
from testbed.network import Command
from testbed.process import MachineError, run, spawn
from testbed.registry import HostRecord, LanRecord
from testbed.ssh import Endpoint, SshAccess, public_key

SUPERVISOR = Path(__file__).with_name("supervisor.py")

REBOOT_STATUS = 133
"""Exit status of systemd-nspawn if its system reboots: see supervisor.py."""


class Machine(ABC):
    """A host with its own system, disk, addresses and sshd."""

    kernel = False
    """Whether its root file system needs a kernel."""
    boot_seconds = 60.0
    """Maximum time of a boot."""

    def __init__(self, lan: LanRecord, host: HostRecord, access: SshAccess) -> None:
        self._lan = lan
        self._host = host
        self._access = access
        self._network = lan.network
        self._cgroup = Cgroup(self._network.namespace(host.number))
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
        """An ssh_config(5) file with this machine's name."""
        return self._access.config

    @property
    def console(self) -> Path:
        """Output of the machine on its console."""
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
        """Run a shell command on the machine, as ``user``, by default root.

        ``operator`` is a user with sudo without a password. Raises MachineError if the command
        fails and ``check`` is set, subprocess.TimeoutExpired after ``timeout`` seconds.
        """
        return self._access.run(
            self.name, command, user=user, input=input, timeout=timeout, check=check
        )

    def start(self) -> None:
        """Start it and wait until it has booted, unless it runs."""
        if self.is_running:
            return
        self._power_off()  # leftovers of a power loss of the controller or a killed supervisor
        self._cgroup.create()
        spec = self._disk.directory / "supervisor.json"
        command = [*self._cgroup.entering("machine"), *self._command()]
        spec.write_text(
            json.dumps({"before": self._connect(), "argv": command, "again": REBOOT_STATUS})
        )
        supervisor = [*self._cgroup.entering("supervisor"), sys.executable, str(SUPERVISOR)]
        self._host.process = spawn([*supervisor, str(spec)], self.console)
        self._lan.save()
        self._watch().wait_until_up()

    def stop(self) -> None:
        """Shut it down."""
        if self._host.process and self.is_running:
            self.ssh("systemctl poweroff", check=False, timeout=30)
            self._host.process.wait(60)
        self.kill()

    def kill(self) -> None:
        """Cut its power: none of its processes runs another instruction."""
        self._power_off()
        self._host.process = None
        self._lan.save()

    def reboot(self) -> None:
        """Reboot from inside, as an administrator would, and wait until it is back."""
        watch = self._watch()
        if not (before := watch.boot_id()):
            raise MachineError(f"{self.name} cannot be rebooted: it does not answer")
        self.ssh("systemctl reboot", check=False, timeout=30)
        self.wait_until_up(before)

    def wait_until_up(self, other_than: str) -> None:
        """Wait until it has booted again, after the boot with this id."""
        self._access.hang_up(self.name)
        self._watch().wait_until_up(other_than)

    def destroy(self) -> None:
        """Stop it and remove it, including its disk."""
        self.kill()
        self._disk.collect_packages(self._host.suite)
        run(["rm", "-rf", "--one-file-system", str(self._disk.directory)])
        self._lan.hosts.pop(self.name, None)
        self._lan.save()

    def create_disk(self) -> None:
        """Create its disk; to be called once."""
        self._disk.directory.mkdir(parents=True)
        self._disk.lend_packages(self._host.suite)
        self._disk.mount()
        self._disk.individualise(self.name, public_key(self._access.identity))
        self._furnish()
        self._host.complete = True
        self._lan.save()

    def endpoint(self) -> Endpoint:
        addresses = (self.address, self.address6)
        return Endpoint(self.name, addresses, self._disk.public_host_key())

    def _watch(self) -> BootWatch:
        return BootWatch(self._access, self.endpoint(), self.console, self._host, self.boot_seconds)

    def _power_off(self) -> None:
        """End all its processes at once and remove leftovers of its run."""
        self._cgroup.kill()
        self._access.hang_up(self.name)
        for command in self._network.unplug(self._host.number):
            run(command, check=False)
        self._cgroup.remove()
        self._release()

    @abstractmethod
    def _furnish(self) -> None:
        """Write files for this kind of machine to its mounted disk."""

    @abstractmethod
    def _connect(self) -> list[Command]:
        """Prepare the disk; returns the commands that connect the machine to the LAN before every
        boot."""

    @abstractmethod
    def _command(self) -> Command:
        """The command line of the running machine."""

    @abstractmethod
    def _release(self) -> None:
        """Undo the changes of `_connect` to the disk, if any."""
