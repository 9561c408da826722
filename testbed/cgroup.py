"""One cgroup a machine: the list of all its processes, and the means to end them at once.

The machine's systemd manages the part below ``machine``, so two machines must never share one, and
nobody else may be in there ("no internal processes", cgroups(7)): the supervisor sits beside it.

It is a child of the root, with and without systemd as the controller's process 1, as Docker's
cgroupfs driver does it too: one way for all, and nothing to ask a service manager for.
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
    """The cgroup of the machine that is named ``name`` on this controller."""

    name: str

    @property
    def path(self) -> Path:
        return next(self._paths("cgroup2"))

    def create(self) -> None:
        """Make it, with all the controllers that there are for the machine to use."""
        for part in (self.path, self.path / "supervisor", self.path / "machine"):
            part.mkdir(exist_ok=True)
        available = (self.path / "cgroup.controllers").read_text().split()
        for controller in available:
            with suppress(OSError):  # in use by a cgroup v1 hierarchy
                (self.path / "cgroup.subtree_control").write_text(f"+{controller}")

    def entering(self, part: str) -> list[str]:
        """Put before a command: it then runs in the part ``supervisor`` or ``machine``."""
        script = 'echo 0 >"$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", script, str(self.path / part)]

    def kill(self) -> None:
        """End every process in it, atomically (cgroup.kill, Linux 5.14)."""
        with suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")
        if not wait_until(lambda: not self._populated(), 10, step=0.01):
            raise MachineError(f"processes in {self.path} can not be ended")

    def _populated(self) -> bool:
        with suppress(FileNotFoundError):
            return "populated 1" in (self.path / "cgroup.events").read_text()
        return False

    def remove(self) -> None:
        """Remove the empty cgroup with all below it.

        nspawn also makes cgroups of the same name in a v1 hierarchy, where there is one.
        """
        for path in self._paths("cgroup2", "cgroup"):
            if path.exists() and not wait_until(partial(_removed, path), 5, step=0.01):
                raise MachineError(f"{path} can not be removed: a process is in it")

    def _paths(self, *kinds: str) -> Iterator[Path]:
        """Where it is in each hierarchy; v2 may be mounted in a directory of a hybrid system."""
        mounts = map(str.split, Path("/proc/self/mounts").read_text().splitlines())
        found = [Path(point) for _, point, kind, *_ in mounts if kind in kinds]
        if not found:
            raise MachineError("this controller has no cgroup v2, which test machines need")
        return iter([point / f"llmhost-lans-{self.name}" for point in found])


def _removed(path: Path) -> bool:
    """Whether the cgroup is gone after an attempt to remove it, deepest part first."""
    for directory in [*sorted(path.rglob("*/"), reverse=True), path]:
        with suppress(OSError):  # busy for a moment after its last process ended
            directory.rmdir()
    return not path.exists()
