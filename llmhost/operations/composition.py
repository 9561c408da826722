"""Operations inside an operation.

The body of an operation can decide from a fact whether it needs them; a dry run depends on that.
"""

from collections.abc import Callable, Sequence
from typing import cast

from pyinfra.api.operation import OperationMeta

from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands


def inner(operation: Callable[..., OperationMeta]) -> Callable[..., Commands]:
    """The body of an operation, for `yield from`."""
    return cast(Callable[..., Commands], operation._inner)  # type: ignore[attr-defined]


def with_reasons(reasons: Sequence[str], commands: Commands) -> Commands:
    """The commands of an inner operation, with these reasons, if any, instead of its own. Nothing
    is reported if there is nothing to run."""
    first = next(commands, None)
    if first is not None:
        if reasons:
            explain(reasons)
        yield first
        yield from commands
