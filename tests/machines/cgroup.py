"""One cgroup a machine: the list of all its processes, and the means to end them at once.

The machine's systemd manages the part below it, so two machines must never share one.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.machines.process import MachineError, ProcessId, wait_until


@dataclass(frozen=True)
class Member:
    """A process in a cgroup."""

    identity: ProcessId
    program: str


@dataclass(frozen=True)
class Cgroup:
    """The cgroup of the machine that is named ``name`` on this controller."""

    name: str

    @property
    def path(self) -> Path:
        return _hierarchy() / f"llmhost-lans-{self.name}"

    def create(self) -> None:
        self.path.mkdir(exist_ok=True)

    def entering(self) -> list[str]:
        """Put before a command: it then runs in this cgroup."""
        script = 'echo 0 >"$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", script, str(self.path)]

    def processes(self) -> list[Member]:
        found = []
        for listing in self.path.rglob("cgroup.procs"):
            with suppress(OSError):  # a cgroup may go while we look
                found += [int(pid) for pid in listing.read_text().split()]
        return [member for pid in found if (member := _member(pid))]

    def kill(self) -> None:
        """End every process in it, atomically (cgroup.kill, Linux 5.14)."""
        with suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")
        if not wait_until(lambda: not self.processes(), 10, step=0.01):
            raise MachineError(f"processes in {self.path} can not be ended")

    def remove(self) -> None:
        """Remove the empty cgroup and those below it."""
        deadline = time.monotonic() + 5
        while self.path.exists() and time.monotonic() < deadline:
            below = sorted(self.path.rglob("*/"), reverse=True)
            for directory in [*below, self.path]:
                with suppress(OSError):  # busy for a moment after its last process ended
                    directory.rmdir()
            time.sleep(0.01)


def _hierarchy() -> Path:
    """Where cgroup v2 is mounted: /sys/fs/cgroup, or a directory in it on a hybrid system."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(point)
    raise MachineError("this controller has no cgroup v2, which test machines need")


def _member(pid: int) -> Member | None:
    try:
        return Member(ProcessId.of(pid), Path(f"/proc/{pid}/comm").read_text().strip())
    except (MachineError, OSError):
        return None
