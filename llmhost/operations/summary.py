"""What a run ends with: which hosts failed, where and why.

pyinfra counts at the end, and says the reasons when they occur: among many hosts they have scrolled
away by then.
"""

import atexit
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gevent
from pyinfra import logger
from pyinfra.api import BaseStateCallback, Host, State
from pyinfra.api.exceptions import PyinfraError

from llmhost.operations.changes import reasons

_LINES = 3
"""Most lines of a command's last words that are repeated."""


@dataclass(frozen=True)
class Failure:
    """A host that failed; `operation` is empty if it was before the first one."""

    host: str
    operation: str
    why: tuple[str, ...]


class _Failures(BaseStateCallback):
    """Notes at which operation a host failed."""

    at: dict[Host, str] = {}  # noqa: RUF012 (pyinfra's callbacks are static)

    @staticmethod
    def operation_host_error(
        state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        del retry_count, max_retries
        if not state.ops[host][op_hash].global_arguments["_ignore_errors"]:
            _Failures.at[host] = op_hash
            # With --no-wait pyinfra itself forgets it, and ends as if all had gone well.
            state.failed_hosts.add(host)


def summarise(state: State) -> None:
    """Let the run end with its failures. Not for dry runs, which `llmhost plan` tells of."""
    known = any(isinstance(handler, _Failures) for handler in state.callback_handlers)
    if not known and Path(sys.argv[0]).name == "pyinfra":
        state.add_callback_handler(_Failures())
        atexit.register(_tell, state)
        # Of an error that ends a host's greenlet pyinfra tells itself; gevent adds a traceback.
        hub = gevent.get_hub()
        hub.NOT_ERROR = (*hub.NOT_ERROR, PyinfraError)


def _tell(state: State) -> None:
    hosts = [host for host in state.inventory if state.is_host_in_limit(host)]
    failed = sorted(state.failed_hosts, key=lambda host: host.name)
    for line in lines([_failure(state, host) for host in failed], len(hosts)):
        logger.error(line)


def _failure(state: State, host: Host) -> Failure:
    if host not in state.activated_hosts:
        return Failure(host.name, "", ("it could not be reached: the reason stands at the top",))
    op_hash = _Failures.at.get(host)
    if op_hash is None:
        return Failure(host.name, "", ("its state could not be read: the reason stands above",))
    operation = min(state.get_op_meta(op_hash).names)
    told = reasons(host.name, op_hash).refusals or _last_words(state, host, op_hash)
    return Failure(host.name, operation, tuple(told))


def _last_words(state: State, host: Host, op_hash: str) -> Sequence[str]:
    meta = state.ops[host][op_hash].operation_meta
    said = [line for line in meta.stderr_lines if line.strip()] if meta.is_complete() else []
    return said[-_LINES:] or ["the reason stands above, at this operation"]


def lines(failures: Sequence[Failure], hosts: int) -> list[str]:
    """The summary; nothing if no host failed."""
    if not failures:
        return []
    told = [f"--> {len(failures)} of {hosts} host(s) failed:"]
    for failure in failures:
        where = f"{failure.host}: {failure.operation}" if failure.operation else failure.host
        told += [f"    {where}", *(f"        {sentence}" for sentence in failure.why)]
    if hosts > 1:
        # Not the whole command: there may be a password in it.
        alone = shlex.join(f"--limit={failure.host}" for failure in failures)
        told.append(f"    For them alone, repeat the command with: {alone}")
    return told
