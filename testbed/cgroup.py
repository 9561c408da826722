"""One cgroup for each machine, to list all its processes and end them at once.

The machine's systemd manages the part below ``machine``, so two machines must never share one, and
no other process may be in it ("no internal processes", cgroups(7)): the supervisor is next to it.

It is a child of the root, with and without systemd as the controller's process 1, like those of
Docker's cgroupfs driver: one way for all, without a service manager.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from testbed.process import MachineError, wait_until


@dataclass(frozen=True)
class Cgroup:
    """The cgroup of the machine ``name`` on this controller."""

    name: str

    @property
    def path(self) -> Path:
        return next(self._paths("cgroup2"))

    def create(self) -> None:
        """Create it, with all available controllers for the machine."""
        for part in (self.path, self.path / "supervisor", self.path / "machine"):
            part.mkdir(exist_ok=True)
        available = (self.path / "cgroup.controllers").read_text().split()
        for controller in available:
            with suppress(OSError):  # used by a cgroup v1 hierarchy
                (self.path / "cgroup.subtree_control").write_text(f"+{controller}")

    def entering(self, part: str) -> list[str]:
        """Prefix for a command, which then runs in the part ``supervisor`` or ``machine``."""
        script = 'echo 0 >"$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", script, str(self.path / part)]

    def kill(self) -> None:
        """End every process in it, atomically (cgroup.kill, Linux 5.14)."""
        with suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")
        if not wait_until(lambda: not self._populated(), 10, step=0.01):
            raise MachineError(f"processes in {self.path} cannot be ended")

    def _populated(self) -> bool:
        with suppress(FileNotFoundError):
            return "populated 1" in (self.path / "cgroup.events").read_text()
        return False

    def remove(self) -> None:
        """Remove the empty cgroup and all below it.

        nspawn also creates cgroups of the same name in a v1 hierarchy, if there is one.
        """
        for path in self._paths("cgroup2", "cgroup"):
            if path.exists() and not wait_until(partial(_removed, path), 5, step=0.01):
                raise MachineError(f"{path} cannot be removed: a process is in it")

    def _paths(self, *kinds: str) -> Iterator[Path]:
        """Its path in each hierarchy; on a hybrid system v2 is mounted in a directory."""
        mounts = map(str.split, Path("/proc/self/mounts").read_text().splitlines())
        found = [Path(point) for _, point, kind, *_ in mounts if kind in kinds]
        if not found:
            raise MachineError("this controller has no cgroup v2, which test machines require")
        return iter([point / f"llmhost-lans-{self.name}" for point in found])


def _removed(path: Path) -> bool:
    """Whether the cgroup is gone after an attempt to remove it, deepest part first."""
    for directory in [*sorted(path.rglob("*/"), reverse=True), path]:
        with suppress(OSError):  # busy for a moment after its last process ended
            directory.rmdir()
    return not path.exists()
