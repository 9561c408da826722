"""Why an operation is about to change something, or refuses to.

pyinfra knows that an operation changes, not why; operators want both. Reasons are given twice: on
the terminal while running, and to `llmhost plan` through `reasons`.
"""

from collections.abc import Iterable

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, State
from pyinfra.context import ctx_host

from llmhost.operations.run_state import Reasons, host_run, title


def reasons(host: Host, operation: str) -> Reasons:
    """What an operation said on a host; empty if it had nothing to say."""
    return host_run(host).reasons.get(operation, Reasons())


def refusals(host: Host) -> list[str]:
    """Why operations refused a host, in order."""
    return [
        sentence
        for operation in host.op_hash_order
        for sentence in reasons(host, operation).refusals
    ]


def explain(sentences: Iterable[str]) -> None:
    """Say, before the first command is yielded, what differs from what is declared."""
    current = _current()
    current.changes = list(sentences)
    if host.state.is_executing:
        for sentence in current.changes:
            host.log(f"  {sentence}")
        if lock := host_run(ctx_host.get()).lock:
            lock.journal.changed(title(host.state, str(host.current_op_hash)))


def note(sentences: Iterable[str]) -> None:
    """Say what the operator should know about the host's state although it stays as it is."""
    current = _current()
    current.notes = list(sentences)
    if host.state.is_executing:
        for sentence in current.notes:
            host.log_styled(sentence, fg="yellow", log_func=logger.warning)


def refuse(sentences: Iterable[str]) -> FunctionCommand:
    """A command that fails the operation on this host alone, after saying why."""
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
