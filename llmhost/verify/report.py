"""What `llmhost verify` found: one record for each server and each check.

The server tests write the records while they run, one JSON object a line
(tests/server/recorder.py);
the command line shows progress from them, and the page of `--html` is made from them.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

Outcome = Literal["passed", "failed", "not checked"]

ON_HARDWARE = "proven on hardware"
ON_A_DOUBLE = "proven on a double"
ON_THE_SERVER = "proven on the server"
"""What a check that passed is worth: it used a real GPU, a stand-in for one, or none at all."""


@dataclass(frozen=True)
class Asked:
    """A command that a check ran, its exit status, and what it complained of where it failed; its
    output is not kept."""

    where: str
    command: str
    status: int
    complaint: str = ""


@dataclass(frozen=True)
class Check:
    """One check of one server. `seen`, `expected` and `todo` are told of a failed one, `reason` of
    one that was not made; `todo` is the next step."""

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
"""Owner of the GPU memory that no process was named for: the driver, a desktop."""


@dataclass(frozen=True)
class MemoryUse:
    """GPU memory in bytes that one service, or something else, holds."""

    owner: str
    size: int


@dataclass(frozen=True)
class ReportedGpu:
    """One GPU as NVML tells of it; None: it does not tell. Sizes in bytes."""

    index: int
    label: str
    uuid: str = ""
    memory_total: int | None = None
    memory_used: int | None = None
    utilisation_percent: int | None = None
    shares: tuple[MemoryUse, ...] = ()

    @property
    def parts(self) -> tuple[MemoryUse, ...]:
        """What the used memory consists of: by owner, then whatever nobody was named for."""
        known = sum(share.size for share in self.shares)
        rest = max(0, (self.memory_used or 0) - known)
        return (*self.shares, MemoryUse(OTHER, rest)) if rest else self.shares


@dataclass(frozen=True)
class LastDeploy:
    """What the receipt on a server tells. `same_settings`: the inventory still says the same."""

    time: str
    version: str
    revision: str
    same_settings: bool


@dataclass(frozen=True)
class Server:
    """One server as it was met. `gpu_note` is why there is no GPU to show."""

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


@dataclass(frozen=True)
class Started:
    """A check that is being made now."""

    host: str
    component: str
    sentence: str


@dataclass(frozen=True)
class Extent:
    """How many checks there are going to be."""

    checks: int


Record = Check | Server | Started | Extent
_KINDS: dict[str, type[Record]] = {
    kind.__name__.lower(): kind for kind in (Check, Server, Started, Extent)
}
_ADAPTERS = {kind: TypeAdapter(of) for kind, of in _KINDS.items()}


def line(record: Record) -> str:
    """A record as a line of JSON."""
    return json.dumps({"kind": type(record).__name__.lower(), **asdict(record)}) + "\n"


def parse(text: str) -> Record:
    """A record from its line; raises ValueError where it is none."""
    data = json.loads(text)
    record: Record = _ADAPTERS[data.pop("kind")].validate_python(data)
    return record


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without API keys: reports are handed around."""
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
    """A whole run. `plans` are the hosts of `llmhost plan --json`; None: it could not be told."""

    inventory: str
    begun: str
    seconds: float
    toolkit: str
    servers: tuple[Server, ...] = ()
    checks: tuple[Check, ...] = ()
    plans: Sequence[dict[str, Any]] | None = None
    plan_problem: str = ""

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(check.outcome for check in self.checks)

    @property
    def proofs(self) -> Counter[str]:
        """Passed checks by what they are worth."""
        return Counter(check.proof for check in self.checks if check.outcome == "passed")

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "failed")

    def components(self, host: str) -> tuple[Component, ...]:
        """A server's checks by component, in the order in which they were made."""
        grouped: dict[str, list[Check]] = {}
        for check in self.checks:
            if check.host == host:
                grouped.setdefault(check.component, []).append(check)
        return tuple(Component(label, tuple(checks)) for label, checks in grouped.items())

    def plan(self, host: str) -> dict[str, Any] | None:
        return next((each for each in self.plans or () if each["host"] == host), None)
