"""pyinfra for tasks: a label for their operations, and warnings to the operator."""

from collections.abc import Callable
from typing import Any, ParamSpec

from pyinfra import logger
from pyinfra.api import deploy

_P = ParamSpec("_P")


def component(label: str) -> Callable[[Callable[_P, None]], Callable[_P, None]]:
    """Make a function one component of the deploy: its operations carry the label.

    pyinfra's own annotation puts its global arguments before a function's positional ones, so that
    no call with a positional argument would pass the type checker.
    """
    decorate: Any = deploy(label)
    return decorate  # type: ignore[no-any-return]


def warn(sentence: str) -> None:
    """Warn the operator while the deploy is prepared, without refusing it."""
    logger.warning(sentence)
