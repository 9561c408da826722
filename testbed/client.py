"""A host without a system: a network namespace on the LAN, to test machines from outside."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

from testbed.process import MachineError, ProcessId, run
from testbed.registry import HostRecord, LanRecord

_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_WITHOUT_PROXY = [f"--unset={name}" for name in _PROXIES]
"""Options of env(1): the controller's proxy would answer for machines that it cannot reach."""


class Client:
    """Runs the controller's programs with the network of another host on the LAN."""

    def __init__(self, lan: LanRecord, host: HostRecord) -> None:
        self._lan = lan
        self._host = host
        self._network = lan.network
        self._space = self._network.namespace(host.number)

    @property
    def name(self) -> str:
        return self._host.name

    @property
    def address(self) -> str:
        return self._network.address(self._host.number)

    @property
    def address6(self) -> str:
        return self._network.address6(self._host.number)

    @property
    def is_running(self) -> bool:
        return Path("/run/netns", self._space).exists()

    def command(self, argv: Sequence[str]) -> list[str]:
        """``argv`` with the prefix to run it on this client; for subprocess.Popen."""
        return ["ip", "netns", "exec", self._space, "env", *_WITHOUT_PROXY, *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = 60,
        check: bool = True,
    ) -> CompletedProcess[str]:
        """Run a program on the client; MachineError if it fails and ``check`` is set."""
        return run(self.command(argv), input=input, env=env, timeout=timeout, check=check)

    def start(self) -> None:
        """Connect it to the LAN, if it is not."""
        if self.is_running:
            return
        for command in self._network.plug_namespace(self._host.number):
            may_fail = command[0] == "-"
            run(command[1:] if may_fail else command, check=not may_fail)

    def introduce(self, hosts: str) -> None:
        """Set the names for the client: ``hosts`` is its hosts(5).

        ip-netns(8) binds the files of /etc/netns/NAME over those of /etc.
        """
        directory = Path("/etc/netns", self._space)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts").write_text(hosts)

    def destroy(self) -> None:
        self._end_processes()
        for command in self._network.unplug(self._host.number):
            run(command, check=False)
        self._lan.hosts.pop(self.name, None)
        self._lan.save()
        directory = Path("/etc/netns", self._space)
        (directory / "hosts").unlink(missing_ok=True)
        if directory.is_dir():
            directory.rmdir()

    def _end_processes(self) -> None:
        """End all processes on the client."""
        pids = run(["ip", "netns", "pids", self._space], check=False).stdout.split()
        for pid in pids:
            with suppress(MachineError):  # it has just ended
                ProcessId.of(int(pid)).send(signal.SIGKILL)
