"""The state of a run: one object for each pyinfra State, with a record for each host.

No run state is kept in module globals: a process may have several States, with hosts of the same
name in each.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra.api import BaseStateCallback, Host, State

from llmhost.history.run_record import Run
from llmhost.inventory.site import SiteHost
from llmhost.operations.fact_prefetch import Prefetch

if TYPE_CHECKING:
    from llmhost.operations.lock import HostLock

_ATTRIBUTE = "llmhost_run"


@dataclass
class Reasons:
    """Sentences of one operation on one host."""

    changes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class HostRun:
    """One host of a run. Operations are named by pyinfra's hash, as in `host.op_hash_order`.

    `completed`: the last one succeeded. `noted`: those whose notes are printed. In a dry run,
    `comparing` is the current operation, and `compared` the number of those before.
    """

    reasons: dict[str, Reasons] = field(default_factory=lambda: defaultdict(Reasons))
    prefetch: Prefetch = field(default_factory=Prefetch)
    lock: "HostLock | None" = None
    failed_at: str = ""
    noted: set[str] = field(default_factory=set)
    completed: bool = False
    comparing: str = ""
    compared: int = 0


@dataclass
class RunState:
    """One run, with its `id`. `site` holds the checked settings of every host, once they are read;
    with `summary`, the process ends with the list of failed hosts. `begun` is the monotonic time of
    the first operation, 0 in a dry run, and `record` who began it and when."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    hosts: dict[str, HostRun] = field(default_factory=lambda: defaultdict(HostRun))
    site: Mapping[str, SiteHost] | None = None
    summary: bool = True
    begun: float = 0
    record: Run | None = None


def run_of(state: State) -> RunState:
    """The run of a State, created on first use."""
    # pyinfra's `state` in a deploy file also works: it passes attributes on to the real one.
    run: RunState | None = getattr(state, _ATTRIBUTE, None)
    if run is None:
        run = RunState()
        setattr(state, _ATTRIBUTE, run)
    return run


def host_run(host: Host) -> HostRun:
    """The record of a host in the run."""
    return run_of(host.state).hosts[host.name]


def add_callbacks(state: State, handler: type[BaseStateCallback]) -> None:
    """Register a handler of pyinfra's callbacks for this run. Idempotent."""
    if not any(isinstance(known, handler) for known in state.callback_handlers):
        state.add_callback_handler(handler())


def title(state: State, operation: str) -> str:
    """An operation's name with its component, as pyinfra prints it."""
    return str(min(state.get_op_meta(operation).names))


def is_ignored(state: State, host: Host, operation: str) -> bool:
    """Whether the run continues if the operation fails."""
    return bool(state.ops[host][operation].global_arguments["_ignore_errors"])
