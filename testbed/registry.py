"""The LANs on this controller, their owners and their parts.

One JSON file a LAN, named by its index. The place is fixed, whatever LLMHOST_CACHE says, because
the indexes are shared by all users of this controller; it is not below /run, because a detached
LAN is started again after the controller rebooted.
"""

from __future__ import annotations

import fcntl
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from testbed.network import FIRST_HOST, Network, free
from testbed.process import MachineError, ProcessId

REGISTRY = Path("/var/lib/llmhost-lans")
INDEXES = range(256)
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_changes = threading.RLock()
"""Several threads may create machines on one LAN at the same time."""


@dataclass
class HostRecord:
    """The record of a machine or client of a LAN."""

    name: str
    kind: str
    """``nspawn``, ``vm`` or ``client``."""
    number: int
    """Host number in the subnet: every address and interface name follows from it."""
    suite: str = ""
    lower: str = ""
    """The root file system below its disk, which a new recipe does not change."""
    volumes: list[str] = field(default_factory=list)
    complete: bool = True
    """Whether its disk is complete."""
    process: ProcessId | None = None
    """Its supervisor, while it runs."""


@dataclass
class LanRecord:
    """The record of a LAN."""

    name: str
    index: int
    state: Path
    """Directory of the disks, keys and logs."""
    owner: ProcessId | None
    """The process whose end makes it abandoned; None for a detached LAN."""
    hosts: dict[str, HostRecord] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        return Network(self.index)

    def add(self, host: HostRecord) -> HostRecord:
        """Give the host a number and record it, before anything of it exists."""
        if not _HOST_NAME.fullmatch(host.name):
            raise MachineError(f"{host.name!r} is no host name: use a-z, 0-9 and -")
        with _changes:
            if host.name in self.hosts:
                raise MachineError(f"the LAN {self.name} already has a host named {host.name}")
            taken = {other.number for other in self.hosts.values()}
            host.number = min(set(range(FIRST_HOST, 255)) - taken)
            self.hosts[host.name] = host
            self.save()
        return host

    def save(self) -> None:
        with _changes:
            path = _path(self.index)
            draft = path.with_suffix(".new")
            draft.write_text(json.dumps(asdict(self), indent=1, default=str) + "\n")
            draft.replace(path)

    def forget(self) -> None:
        _path(self.index).unlink(missing_ok=True)

    @property
    def abandoned(self) -> bool:
        """Whether it is abandoned: its owner or its directory no longer exists."""
        return not self.owner.alive() if self.owner else not self.state.is_dir()


def _path(index: int) -> Path:
    return REGISTRY / f"{index}.json"


_thread_lock = threading.RLock()
_depth = 0


@contextmanager
def locked() -> Iterator[None]:
    """Lock what LANs share against all other processes and threads; may be nested."""
    global _depth
    REGISTRY.mkdir(parents=True, exist_ok=True)
    with _thread_lock, (REGISTRY / "lock").open("w") as lock:
        if _depth == 0:
            fcntl.flock(lock, fcntl.LOCK_EX)
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1


def records() -> list[LanRecord]:
    """All LANs of this controller, by index."""
    files = sorted(REGISTRY.glob("*.json"), key=lambda file: int(file.stem))
    return [_load(file) for file in files]


def _load(file: Path) -> LanRecord:
    data = json.loads(file.read_text())
    hosts = {
        name: HostRecord(**{**host, "process": _process(host["process"])})
        for name, host in data["hosts"].items()
    }
    owner = _process(data["owner"])
    return LanRecord(data["name"], data["index"], Path(data["state"]), owner, hosts)


def _process(data: dict[str, int | str] | None) -> ProcessId | None:
    if data is None:
        return None
    return ProcessId(int(data["pid"]), int(data["started"]), str(data["boot"]))


def find(state: Path) -> LanRecord:
    """The LAN whose directory is ``state``; MachineError if there is none."""
    for record in records():
        if record.state == state.resolve():
            return record
    raise MachineError(f"no LAN has its state in {state}: create one with Lan.create")


def allocate(name: str, state: Path, owner: ProcessId | None) -> LanRecord:
    """Record a LAN under the lowest free index."""
    with locked():
        if any(record.state == state for record in records()):
            raise MachineError(f"{state} is the state of another LAN: open or destroy that one")
        taken = {record.index for record in records()}
        for index in INDEXES:
            if index not in taken and free(Network(index)):
                record = LanRecord(name, index, state, owner)
                record.save()
                return record
    raise MachineError("all test subnets in 10.231.0.0/16 are in use: see python -m testbed")
