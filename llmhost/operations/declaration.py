"""Declaration of operations: a body, and the facts that it reads first."""

from collections.abc import Callable, Generator, Sequence
from functools import wraps
from typing import Any, TypeVar

from pyinfra.api import BaseStateCallback, FactBase, Host, State, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.operation import OperationMeta
from pyinfra.context import ctx_host

from llmhost.operations.fact_prefetch import Question
from llmhost.operations.run_state import add_callbacks, host_run

Commands = Generator[PyinfraCommand, None, None]
"""The return type of an operation's body."""

_Body = Callable[..., Commands]
_T = TypeVar("_T")


def declared(
    prefetch: Callable[..., Sequence[Question]] | None,
) -> Callable[[_Body], Callable[..., OperationMeta]]:
    """Turn a body into an operation.

    `prefetch` takes the body's arguments and returns the facts that the body reads, except those
    that depend on an answer or must be read at the time of use; they are read together with those
    of other operations. It must not read facts itself. None: there are no such facts.

    pyinfra's own annotation puts its global arguments before an operation's positional ones, so
    that no call with a positional argument would pass the type checker.
    """

    def decorate(body: _Body) -> Callable[..., OperationMeta]:
        @wraps(body)
        def watched(*args: Any, **kwargs: Any) -> Commands:
            host: Host = ctx_host.get()
            run = host_run(host)
            run.reasons.pop(str(host.current_op_hash), None)
            for command in body(*args, **kwargs):
                if host.state.is_executing:
                    run.prefetch.forget()
                yield command

        operated: Any = operation()(watched)

        @wraps(body)
        def call(*args: Any, **kwargs: Any) -> OperationMeta:
            meta: OperationMeta = operated(*args, **kwargs)
            _expect(prefetch, args, kwargs)
            return meta

        call._inner = body  # type: ignore[attr-defined]
        return call

    return decorate


def _expect(
    prefetch: Callable[..., Sequence[Question]] | None, args: Any, kwargs: dict[str, Any]
) -> None:
    """Record the questions of the operation that was just added to the current host."""
    host: Host = ctx_host.get()
    if host.state.is_executing:
        return  # it has already run
    own = {key: value for key, value in kwargs.items() if key != "name" and key[0] != "_"}
    questions = prefetch(*args, **own) if prefetch else ()
    host_run(host).prefetch.expect(host.op_hash_order[-1], questions)
    add_callbacks(host.state, _Foreign)


class _Foreign(BaseStateCallback):
    """Another operation may change anything: it invalidates prefetched facts."""

    @staticmethod
    def operation_host_start(state: State, host: Host, op_hash: str) -> None:
        del state
        prefetch = host_run(host).prefetch
        if op_hash not in prefetch.questions:
            prefetch.forget()


def get_fact(fact: type[FactBase[_T]], **arguments: Any) -> _T:
    """A fact of the current host: prefetched if nothing changed since then, otherwise read now."""
    host: Host = ctx_host.get()
    value: _T = host_run(host).prefetch.value(host, Question(fact, arguments))
    return value
