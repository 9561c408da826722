"""The summary at the end of a run: which hosts failed, where and why; and its announcement.

pyinfra prints errors when they occur and only counts at the end; with many hosts, the errors have
scrolled away by then.
"""

import atexit
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra import logger
from pyinfra.api import BaseStateCallback, Host, State

from llmhost.operations.announcement import Progress, announce_end
from llmhost.operations.changes import reasons
from llmhost.operations.run_state import add_callbacks, host_run, is_ignored, run_of, title
from llmhost.units import counted

_LINES = 3
"""How many of the last lines of a failed command's output are repeated."""

NOTE = "note: "
"""Begins a line of a script's standard error that an operator should see."""


@dataclass(frozen=True)
class Failure:
    """A host that failed; `operation` is empty if it failed before the first one."""

    host: str
    operation: str
    why: tuple[str, ...]


class _Failures(BaseStateCallback):
    """Records the operation at which a host failed."""

    @staticmethod
    def operation_host_error(
        state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        del retry_count, max_retries
        if not is_ignored(state, host, op_hash):
            host_run(host).failed_at = op_hash
            # With --no-wait, pyinfra does not record this and ends as if nothing had failed.
            state.failed_hosts.add(host)


class _Notes(BaseStateCallback):
    """Prints what scripts noted on hosts, which pyinfra shows only if they fail."""

    @staticmethod
    def operation_end(state: State, op_hash: str) -> None:
        for host in state.inventory.get_active_hosts():
            _print_notes(state, host, op_hash)


def _print_notes(state: State, host: Host, op_hash: str) -> None:
    operation = state.ops[host].get(op_hash)
    noted = host_run(host).noted
    if operation is None or op_hash in noted or not operation.operation_meta.is_complete():
        return
    noted.add(op_hash)
    for line in operation.operation_meta.stderr_lines:
        if line.startswith(NOTE):
            host.log_styled(line.removeprefix(NOTE), fg="yellow", log_func=logger.warning)


def summarise(state: State) -> None:
    """Print notes of scripts, and the failed hosts of this run when the process ends, unless the
    caller reports them itself (`RunState.summary`)."""
    run = run_of(state)
    if run.summary:
        run.summary = False
        add_callbacks(state, _Failures)
        add_callbacks(state, _Notes)
        add_callbacks(state, Progress)
        # pyinfra has no callback for the end of a run. The last one that is registered runs first.
        atexit.register(announce_end, state)
        atexit.register(_print_summary, state)


def _print_summary(state: State) -> None:
    hosts = [host for host in state.inventory if state.is_host_in_limit(host)]
    for host in state.activated_hosts:
        # With --no-wait and --serial, there is no callback for the end of an operation.
        for op_hash in host.op_hash_order:
            _print_notes(state, host, op_hash)
    failed = sorted(state.failed_hosts, key=lambda host: host.name)
    for line in lines([_failure(state, host) for host in failed], len(hosts)):
        logger.error(line)


def _failure(state: State, host: Host) -> Failure:
    if host not in state.activated_hosts:
        return Failure(host.name, "", ("unreachable; see the top of the output for the reason",))
    op_hash = host_run(host).failed_at
    if not op_hash:
        return Failure(
            host.name, "", ("its state could not be read; see the lines above for the reason",)
        )
    why = reasons(host, op_hash).refusals or _last_words(state, host, op_hash)
    return Failure(host.name, title(state, op_hash), tuple(why))


def _last_words(state: State, host: Host, op_hash: str) -> Sequence[str]:
    meta = state.ops[host][op_hash].operation_meta
    tail = [line for line in meta.stderr_lines if line.strip()] if meta.is_complete() else []
    return tail[-_LINES:] or ["see the output of this operation above for the reason"]


def lines(failures: Sequence[Failure], hosts: int) -> list[str]:
    """The summary; nothing if no host failed."""
    if not failures:
        return []
    summary = [f"--> {len(failures)} of {counted(hosts, 'host')} failed:"]
    for failure in failures:
        where = f"{failure.host}: {failure.operation}" if failure.operation else failure.host
        summary += [f"    {where}", *(f"        {sentence}" for sentence in failure.why)]
    if hosts > 1:
        # Not the whole command: it may contain a password.
        alone = shlex.join(f"--limit={failure.host}" for failure in failures)
        summary.append(f"    To retry only these hosts, rerun the command with: {alone}")
    return summary
