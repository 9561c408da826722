"""Secrets of services that do not exist."""

from collections.abc import Iterator

from llmhost.inventory.problem import Problem
from llmhost.secret import read_secret
from llmhost.settings import Settings


def secret_problems(settings: Settings) -> Iterator[Problem]:
    """Each reference of a catalog service to a missing secret; apps have their own rule."""
    for service, options in settings.service_options.items():
        for name in options.secret_options.values():
            reference = getattr(options, name)
            try:
                read_secret(reference)
            except ValueError as error:
                yield Problem(f"{service}_{name}", str(error), _way_to_make(reference))


def _way_to_make(reference: str) -> str:
    kind, _, place = reference.partition(":")
    if kind == "env":
        return "set it, or refer to a file: file:PATH"
    return f"create it with: (umask 077; openssl rand -hex 32 > {place}), or refer to another file"
