"""Why an operation changes something, or refuses to.

pyinfra reports that an operation changes something, but not why. Reasons are shown on the terminal
during a run, and `llmhost plan` reads them through `reasons`.
"""

from collections.abc import Iterable

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, State
from pyinfra.context import ctx_host

from llmhost.operations.run_state import Reasons, host_run, title


def reasons(host: Host, operation: str) -> Reasons:
    """The reasons of an operation on a host; empty if there are none."""
    return host_run(host).reasons.get(operation, Reasons())


def refusals(host: Host) -> list[str]:
    """Why operations refused a host, in order."""
    return [
        sentence
        for operation in host.op_hash_order
        for sentence in reasons(host, operation).refusals
    ]


def explain(sentences: Iterable[str]) -> None:
    """Report, before the first command is yielded, what differs from the declared state."""
    current = _current()
    current.changes = list(sentences)
    if host.state.is_executing:
        for sentence in current.changes:
            host.log(f"  {sentence}")
        if lock := host_run(ctx_host.get()).lock:
            lock.journal.changed(title(host.state, str(host.current_op_hash)))


def note(sentences: Iterable[str]) -> None:
    """Report a state that the operator should know about but that is not changed."""
    current = _current()
    current.notes = list(sentences)
    for sentence in current.notes:
        warn(sentence)


def warn(sentence: str) -> None:
    """Report, between commands, what the operator should know about."""
    if host.state.is_executing:
        host.log_styled(sentence, fg="yellow", log_func=logger.warning)


def refuse(sentences: Iterable[str]) -> FunctionCommand:
    """A command that prints the reasons and fails the operation on this host only."""
    current = _current()
    current.refusals = list(sentences)
    return FunctionCommand(_refuse, [tuple(current.refusals)], {})


def _refuse(state: State, host: Host, sentences: tuple[str, ...]) -> bool:
    del state  # pyinfra passes the host only to functions that have both parameters
    for sentence in sentences:
        host.log_styled(sentence, fg="red", log_func=logger.error)
    return False


def _current() -> Reasons:
    return host_run(ctx_host.get()).reasons[str(host.current_op_hash)]
