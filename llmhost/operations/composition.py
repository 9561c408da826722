"""Operations inside an operation.

Only inside a body can the need for them be decided from a fact, as a dry run must.
"""

from collections.abc import Callable, Sequence
from typing import cast

from pyinfra.api.operation import OperationMeta

from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands


def inner(operation: Callable[..., OperationMeta]) -> Callable[..., Commands]:
    """The body of an operation, to be used with `yield from`."""
    return cast(Callable[..., Commands], operation._inner)  # type: ignore[attr-defined]


def told(reasons: Sequence[str], commands: Commands) -> Commands:
    """The commands, under these reasons, if there are any, instead of those of the operation that
    they come from. Nothing is said when there is nothing to run."""
    first = next(commands, None)
    if first is not None:
        if reasons:
            explain(reasons)
        yield first
        yield from commands
