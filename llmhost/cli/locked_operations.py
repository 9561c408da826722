"""Operations that a command runs outside a deploy, on hosts that it locks as a deploy does."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyinfra
from pyinfra.api import Host, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage

from llmhost.operations import lock
from llmhost.operations.changes import refusals
from llmhost.operations.inventory import site_host

_LINES = 25
"""How many of the last lines of a failed command's output are repeated."""


@dataclass(frozen=True)
class Call:
    """An operation, its title, and its arguments."""

    operation: Callable[..., Any]
    title: str
    arguments: tuple[object, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def run_locked(state: State, calls: Mapping[Host, Call]) -> dict[str, list[str]]:
    """Run an operation on each of these connected hosts, except those that another run has locked.

    Returns the hosts that failed, by name, with the reasons of each.
    """
    pyinfra.is_cli = False  # the operations are added here, not by a deploy file
    state.set_stage(StateStage.Prepare)
    for host, call in calls.items():
        directory = site_host(host).settings.receipt.directory
        add_op(state, lock.locked, directory, host=host, name="Lock the host")
        add_op(state, call.operation, *call.arguments, host=host, name=call.title, **call.options)
    state.set_stage(StateStage.Execute)
    with suppress(PyinfraError):  # all hosts failed: the reasons are returned
        run_ops(state)
    failed = (host for host in calls if host not in state.active_hosts)
    return {host.name: _why(state, host) for host in failed}


def _why(state: State, host: Host) -> list[str]:
    """Why an operation refused the host, or the last lines of the command that failed."""
    if sentences := refusals(host):
        return sentences
    for operation in reversed(host.op_hash_order):
        meta = state.ops[host][operation].operation_meta
        if meta.is_complete() and meta.stderr_lines:
            return list(meta.stderr_lines[-_LINES:])
    return ["the command failed and printed nothing; see llmhost history"]
