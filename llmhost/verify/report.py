"""Results of `llmhost verify`: one record for each server and each check.

The server tests (tests/server/recorder.py) write the records while they run, one JSON object on a
line. The command line shows progress from them; the page of `--html` is rendered from them.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

Outcome = Literal["passed", "failed", "not checked"]

ON_HARDWARE = "proven on hardware"
ON_A_DOUBLE = "proven on a double"
ON_THE_SERVER = "proven on the server"
"""Proof of a passed check: it used a real GPU, a double, or none at all."""


@dataclass(frozen=True)
class Asked:
    """A command that a check ran, its exit status, and its error message if it failed; its output
    is not recorded."""

    where: str
    command: str
    status: int
    complaint: str = ""


@dataclass(frozen=True)
class Check:
    """One check of one server. A failed check has `seen`, `expected` and `todo`, the next step; a
    skipped check has a `reason`."""

    host: str
    component: str
    id: str
    sentence: str
    outcome: Outcome
    seconds: float = 0.0
    proof: str = ""
    seen: str = ""
    expected: str = ""
    todo: str = ""
    reason: str = ""
    trace: str = ""
    asked: tuple[Asked, ...] = ()


OTHER = "other"
"""Owner of GPU memory without a known process: the driver, a desktop."""


@dataclass(frozen=True)
class MemoryUse:
    """GPU memory of a service or another owner, in bytes."""

    owner: str
    size: int


@dataclass(frozen=True)
class ReportedGpu:
    """One GPU as NVML reports it; None: not reported. Sizes in bytes."""

    index: int
    label: str
    uuid: str = ""
    memory_total: int | None = None
    memory_used: int | None = None
    utilisation_percent: int | None = None
    shares: tuple[MemoryUse, ...] = ()

    @property
    def parts(self) -> tuple[MemoryUse, ...]:
        """The used memory by owner, followed by the rest."""
        known = sum(share.size for share in self.shares)
        rest = max(0, (self.memory_used or 0) - known)
        return (*self.shares, MemoryUse(OTHER, rest)) if rest else self.shares


@dataclass(frozen=True)
class LastDeploy:
    """The receipt of a server. `same_settings`: the inventory has not changed since."""

    time: str
    version: str
    revision: str
    same_settings: bool


@dataclass(frozen=True)
class Server:
    """One server. `gpu_note` is the reason if there are no GPUs."""

    host: str
    answers: bool = True
    problem: str = ""
    system: str = ""
    kernel: str = ""
    uptime_seconds: int | None = None
    memory_bytes: int | None = None
    processors: int | None = None
    driver: str = ""
    gpu_double: bool = False
    gpus: tuple[ReportedGpu, ...] = ()
    gpu_note: str = "no GPU"
    last_deploy: LastDeploy | None = None


WAITING = "server"
"""Component of a record that a server is waited for."""


@dataclass(frozen=True)
class Started:
    """A check that has started, or a wait for its server."""

    host: str
    component: str
    sentence: str


@dataclass(frozen=True)
class Extent:
    """The number of checks to start; each of several processes writes it."""

    checks: int


@dataclass(frozen=True)
class LeftOut:
    """A check that has started, and does not apply to its server."""

    host: str


Record = Check | Server | Started | LeftOut | Extent
_KINDS: dict[str, type[Record]] = {
    kind.__name__.lower(): kind for kind in (Check, Server, Started, LeftOut, Extent)
}


@cache
def _adapter(kind: str) -> TypeAdapter[Record]:
    """Built on use: the server tests only write records."""
    return TypeAdapter(_KINDS[kind])


def line(record: Record) -> str:
    """A record as a line of JSON."""
    return json.dumps({"kind": type(record).__name__.lower(), **asdict(record)}) + "\n"


def parse(text: str) -> Record:
    """A record from its line; raises ValueError if it is not one."""
    data = json.loads(text)
    return _adapter(data.pop("kind")).validate_python(data)


def unproven(records: Sequence[Record]) -> frozenset[str]:
    """The hosts that failed a check or did not answer, and those that are `unended`."""
    found = {
        record.host
        for record in records
        if (isinstance(record, Check) and record.outcome == "failed")
        or (isinstance(record, Server) and not record.answers)
    }
    return unended(records) | found


def unended(records: Iterable[Record]) -> frozenset[str]:
    """The hosts with a check that did not end because its process did."""
    open_checks: Counter[str] = Counter()
    for record in records:
        if isinstance(record, Started):
            open_checks[record.host] += record.component != WAITING
        elif isinstance(record, Check | LeftOut):
            # A check that is skipped by a mark ends without having begun.
            open_checks[record.host] = max(0, open_checks[record.host] - 1)
    return frozenset(host for host, count in open_checks.items() if count > 0)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without API keys: reports are shared."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "[key]")
    return re.sub(r"llmhost-[0-9a-f]{64}", "[key]", text)


@dataclass(frozen=True)
class Component:
    """The checks of one component of one server."""

    label: str
    checks: tuple[Check, ...]

    def count(self, outcome: Outcome) -> int:
        return sum(check.outcome == outcome for check in self.checks)


@dataclass(frozen=True)
class Report:
    """A run. `plans` are the hosts of `llmhost plan --json`; None: unknown. `succeeded`: all checks
    were made and none failed, by the exit status; `unended` are hosts with a check that did not
    end."""

    inventory: str
    begun: str
    seconds: float
    toolkit: str
    servers: tuple[Server, ...] = ()
    checks: tuple[Check, ...] = ()
    plans: Sequence[dict[str, Any]] | None = None
    plan_problem: str = ""
    succeeded: bool = True
    unended: frozenset[str] = frozenset()

    @property
    def is_broken(self) -> bool:
        """Whether the run has ended too early, so that checks may be missing."""
        return bool(self.unended) or not (self.succeeded or self.failed)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(check.outcome for check in self.checks)

    @property
    def proofs(self) -> Counter[str]:
        """Passed checks by proof."""
        return Counter(check.proof for check in self.checks if check.outcome == "passed")

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "failed")

    def components(self, host: str) -> tuple[Component, ...]:
        """A server's checks by component, in the order of the run."""
        grouped: dict[str, list[Check]] = {}
        for check in self.checks:
            if check.host == host:
                grouped.setdefault(check.component, []).append(check)
        return tuple(Component(label, tuple(checks)) for label, checks in grouped.items())

    def plan(self, host: str) -> dict[str, Any] | None:
        return next((each for each in self.plans or () if each["host"] == host), None)
