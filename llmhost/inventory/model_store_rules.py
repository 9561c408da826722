"""Secrets of the site's store of weights."""

from collections.abc import Iterator

from llmhost.inventory.problem import Problem
from llmhost.models.store import credentials
from llmhost.settings import Settings


def model_store_problems(settings: Settings) -> Iterator[Problem]:
    """A secret that cannot be read."""
    try:
        credentials(settings.model_store)
    except ValueError as error:
        option, _, what = str(error).partition(" ")
        yield Problem(option, what, "set it, or refer to another variable or file")
