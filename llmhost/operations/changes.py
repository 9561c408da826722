"""Why an operation is about to change something, or refuses to.

pyinfra knows that an operation changes, not why; operators want both. Reasons are told twice: on
the terminal while running, and to `llmhost plan` through `reasons`.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, State, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.operation import OperationMeta
from pyinfra.context import ctx_host

from llmhost.operations import fact_prefetch

Commands = Generator[PyinfraCommand, None, None]
"""What an operation's body returns."""


def declared(body: Callable[..., Commands]) -> Callable[..., OperationMeta]:
    """Make an operation of its body, whose first fact can be read ahead.

    pyinfra's own annotation puts its global arguments before an operation's positional ones, so
    that no call with a positional argument would pass the type checker.
    """
    operated: Any = operation()(body)

    @wraps(body)
    def call(*args: Any, **kwargs: Any) -> OperationMeta:
        fact_prefetch.foresee(ctx_host.get(), body, *args, **kwargs)
        meta: OperationMeta = operated(*args, **kwargs)
        return meta

    call._inner = body  # type: ignore[attr-defined]
    return call


@dataclass
class Reasons:
    """Sentences of one operation on one host."""

    changes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


_reasons: dict[tuple[str, str], Reasons] = defaultdict(Reasons)

on_change: list[Callable[[Host], None]] = []
"""Called while executing, before an operation's first change on a host."""


def reasons(host_name: str, operation_hash: str) -> Reasons:
    """What an operation said on a host; empty if it had nothing to say."""
    return _reasons.get((host_name, operation_hash), Reasons())


def explain(sentences: Iterable[str]) -> None:
    """Say, before the first command is yielded, what differs from what is declared."""
    told = _reasons[_current()]
    told.changes = list(sentences)
    if host.state.is_executing:
        for sentence in told.changes:
            host.log(f"  {sentence}")
        for listener in on_change:
            listener(host)


def note(sentences: Iterable[str]) -> None:
    """Say what the operator should know of the host's state although it is to stay so."""
    told = _reasons[_current()]
    told.notes = list(sentences)
    if host.state.is_executing:
        for sentence in told.notes:
            host.log_styled(sentence, fg="yellow", log_func=logger.warning)


def refuse(sentences: Iterable[str]) -> FunctionCommand:
    """A command that fails the operation on this host alone, after saying why."""
    told = _reasons[_current()]
    told.refusals = list(sentences)
    return FunctionCommand(_refuse, [tuple(told.refusals)], {})


def _refuse(state: State, host: Host, sentences: tuple[str, ...]) -> bool:
    del state  # pyinfra passes the host only to functions that have both parameters
    for sentence in sentences:
        host.log_styled(sentence, fg="red", log_func=logger.error)
    return False


def _current() -> tuple[str, str]:
    return host.name, str(host.current_op_hash)
