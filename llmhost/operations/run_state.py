"""What llmhost knows about one run: one object for each pyinfra State, with a record for each host.

Nothing about a run is kept in modules: a process may hold several States, and hosts of the same
name in each.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra.api import BaseStateCallback, Host, State

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
    """One host of a run. Operations are named by pyinfra's hash, as in `host.op_hash_order`."""

    reasons: dict[str, Reasons] = field(default_factory=lambda: defaultdict(Reasons))
    prefetch: Prefetch = field(default_factory=Prefetch)
    lock: "HostLock | None" = None
    failed_at: str = ""


@dataclass
class RunState:
    """One run. `site` holds the checked settings of every host, once they are read; `summary` tells
    whether the process ends with the list of failed hosts."""

    hosts: dict[str, HostRun] = field(default_factory=lambda: defaultdict(HostRun))
    site: Mapping[str, SiteHost] | None = None
    summary: bool = True


def run_of(state: State) -> RunState:
    """The run of a State, made when it is first asked for."""
    # Through pyinfra's `state` of a deploy file too, which passes attributes on to the real one.
    run: RunState | None = getattr(state, _ATTRIBUTE, None)
    if run is None:
        run = RunState()
        setattr(state, _ATTRIBUTE, run)
    return run


def host_run(host: Host) -> HostRun:
    """The record of a host in its run."""
    return run_of(host.state).hosts[host.name]


def add_callbacks(state: State, handler: type[BaseStateCallback]) -> None:
    """Let a class handle pyinfra's callbacks in this run; a second call changes nothing."""
    if not any(isinstance(known, handler) for known in state.callback_handlers):
        state.add_callback_handler(handler())


def title(state: State, operation: str) -> str:
    """An operation's name with its component's, as pyinfra prints it."""
    return str(min(state.get_op_meta(operation).names))


def is_ignored(state: State, host: Host, operation: str) -> bool:
    """Whether the run goes on although the operation failed."""
    return bool(state.ops[host][operation].global_arguments["_ignore_errors"])
