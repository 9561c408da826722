"""From pydantic's errors to problems, in the words of the options' types."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llmhost.inventory.problem import Problem
from llmhost.options.base import Section
from llmhost.options.kind import WORD, example_of, given, kinds_of

Place = tuple[int | str, ...]


def details(error: ValidationError) -> Iterator[ErrorDetails]:
    """Every mistake once: of one entry in a mapping, name and value may both be wrong."""
    found = error.errors()
    names = {each["loc"][:-1] for each in found if each["loc"][-1:] == ("[key]",)}
    yield from (each for each in found if each["loc"] not in names)


def problem(prefix: str, section: type[Section], detail: ErrorDetails) -> Problem:
    """One mistake in a section with a prefix of its keys: `docker_`, or `models[0].`."""
    place = detail["loc"]
    if detail["type"] == "missing":
        return _missing(prefix, section, place)
    if detail["type"] == "extra_forbidden":
        return _unknown(prefix, section, place)
    error = detail["ctx"]["error"]
    what, _, fix = str(error).partition("; ")
    if place[-1:] == ("[key]",):
        return Problem(_key(prefix, place[:-2]), f"has a name that {what}", fix)
    option = getattr(error, "option", "")
    return Problem(_key(prefix, (*place, option) if option else place), what, fix)


def _missing(prefix: str, section: type[Section], place: Place) -> Problem:
    field = _owner(section, place[:-1]).model_fields[str(place[-1])]
    kinds = kinds_of(field.annotation, field.metadata)
    is_list = get_origin(field.annotation) is tuple
    what = "a list" if is_list else next((each.expected for each in kinds), "a record")
    example = example_of(field.annotation, field.metadata)
    return Problem(_key(prefix, place), "is missing", f"add {what}, such as {example}")


def _unknown(prefix: str, section: type[Section], place: Place) -> Problem:
    name = str(place[-1])
    known = _owner(section, place[:-1]).model_fields
    key = _key(prefix, (*place[:-1], shown_key(name)))
    return Problem(key, "unknown key", nearest(name, known, f"the keys are {', '.join(known)}"))


def _owner(section: type[Section], place: Iterable[int | str]) -> type[Section]:
    """The section or record at a place within another."""
    for part in place:
        field = section.model_fields.get(str(part))
        section = next(_records_in(field.annotation), section) if field else section
    return section


def _records_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _records_in(argument)


def _key(prefix: str, place: Iterable[int | str]) -> str:
    """`firewall_` and `("rules", 0, "port")` as `firewall_rules[0].port`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{prefix}{''.join(parts).removeprefix('.')}".rstrip("._")


def shown_key(key: str) -> str:
    """An unknown key; text that cannot be a key is not repeated."""
    return key if re.fullmatch(r"[A-Za-z_]\w{0,47}", key, re.ASCII) else f"{key[:3]!r}…"


def quoted(name: object) -> str:
    """An unknown name, if it may be repeated."""
    return given(name, WORD)


def listed(words: Iterable[str]) -> str:
    """`'a', 'b' or 'c'`."""
    *others, last = map(repr, words)
    return f"{', '.join(others)} or {last}"


def nearest(
    name: object, known: Iterable[str], otherwise: str = "llmhost docs options lists them all"
) -> str:
    """A suggestion for an unknown name."""
    text = name[:64] if isinstance(name, str) else ""
    near = get_close_matches(text, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else otherwise
