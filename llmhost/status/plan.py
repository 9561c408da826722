"""What `llmhost plan` reports. Pure."""

from dataclasses import dataclass
from typing import Literal

SCHEMA = 1
ERRORS = {"refused", "failed", "unreachable"}


@dataclass(frozen=True)
class Step:
    """One operation that would run: its component, its name and the reasons."""

    component: str
    operation: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class HostPlan:
    """One host. It is `refused` if it is unfit, or a state of it must not change; `failed` if its
    state could not be read. `errors` are sentences, `notes` are about a state that a deploy
    keeps."""

    host: str
    status: Literal["converged", "drift", "refused", "failed", "unreachable"]
    steps: tuple[Step, ...] = ()
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlanReport:
    """The output of `llmhost plan --json`: hosts by name."""

    schema: int
    hosts: tuple[HostPlan, ...]
