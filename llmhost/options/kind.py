"""Kinds of option values: how to read them, and how messages and docs/options.md describe them.

pydantic's own types accept more than an inventory should (True as a number, a set as a list) and
describe a mistake in terms of their validators. A `Kind` reads strictly and refuses with one
sentence: the given value, the expected one, an example. It never repeats a value that may be a
secret.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

NUMERIC = re.compile(r"[-+0-9.,_]{1,12}%?|[A-Za-z]{1,12}")
"""Text that a message may repeat where a number is expected."""
ADDRESS = re.compile(r"(?=.*[.:])[0-9A-Fa-f.:/]{2,43}")
"""Text that a message may repeat where an address is expected."""
WORD = re.compile(r"(?!sk-|hf_|gh._)([a-z][a-z_-]{0,23}|[A-Za-z][A-Za-z0-9_.-]{0,10})")
"""Text that a message may repeat where a word or a name is expected; nothing that looks like a
key."""


class Mistake(ValueError):
    """A sentence without its subject: "is …; write …". `option` names the option of the section, if
    pydantic does not know it."""

    def __init__(self, sentence: str, option: str = "") -> None:
        super().__init__(sentence)
        self.option = option


@dataclass(frozen=True, eq=False)
class Kind:
    """`read` returns the value to keep. It raises `Mistake`, or any other error for the default
    sentence. `expected` continues "write". `shown` matches text that a message may repeat."""

    read: Callable[[Any], object]
    expected: str
    example: object = None
    shown: re.Pattern[str] | None = None

    def __call__(self, value: object) -> object:
        try:
            return self.read(value)
        except Mistake:
            raise
        except (ValueError, TypeError, LookupError, OSError, ArithmeticError, RecursionError):
            raise Mistake(f"is {given(value, self.shown)}; write {self.described}") from None

    @property
    def described(self) -> str:
        """What is expected, with an example as an inventory has it."""
        such = "" if self.example is None else f", such as {self.example!r}"
        return f"{self.expected}{such}"

    def __get_pydantic_core_schema__(self, _source: Any, _: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self)


def each_of(kind: Kind, items: Iterable[object]) -> tuple[Any, ...]:
    """The items of a list, each read by its kind; a mistake names the place in the list."""
    found = []
    for place, item in enumerate(items):
        try:
            found.append(kind(item))
        except Mistake as mistake:
            raise Mistake(f"has an item [{place}] that {mistake}") from None
    return tuple(found)


class Choice:
    """One of the words of a `Literal`."""

    def kind(self, source: Any) -> Kind:
        words = get_args(source)
        *others, last = map(repr, words)

        def read(value: object) -> object:
            if not isinstance(value, str) or value not in words:
                raise ValueError
            return value

        return Kind(read, f"{', '.join(others)} or {last}", shown=WORD)

    def __get_pydantic_core_schema__(self, source: Any, _: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.kind(source))


@dataclass(frozen=True)
class Listed:
    """A list of `least` items or more. Text is not split into characters, and sets are refused,
    because they have no order. `check` raises Mistake for items that do not go together."""

    least: int = 0
    repeats: bool = False
    check: Callable[[tuple[Any, ...]], None] = lambda _items: None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        example = example_of(source)

        def shape(value: object) -> object:
            if not isinstance(value, list | tuple):
                raise Mistake(f"is {given(value)}; write a list, such as {example}")
            if len(value) < self.least:
                raise Mistake(f"is an empty list; write at least one item, such as {example}")
            return value

        def items(value: tuple[Any, ...]) -> tuple[Any, ...]:
            self.check(value)
            for place, item in enumerate(value):
                if not self.repeats and item in value[:place]:
                    first = value.index(item)
                    raise Mistake(f"has the same item at [{first}] and [{place}]; keep one of them")
            return value

        inner = core_schema.no_info_before_validator_function(shape, handler(source))
        return core_schema.no_info_after_validator_function(items, inner)


class Mapped:
    """A mapping, from one kind to another."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        example = example_of(source)

        def shape(value: object) -> object:
            if not isinstance(value, Mapping):
                raise Mistake(f"is {given(value)}; write a mapping, such as {example}")
            return value

        return core_schema.no_info_before_validator_function(shape, handler(source))


def given(value: object, shown: re.Pattern[str] | None = None) -> str:
    """Describes a value of the inventory; continues "is". It repeats only text that `shown`
    matches, and small numbers if text may be shown."""
    match value:
        case None | bool():
            return str(value)
        case int() | float():
            return _number(value, shown)
        case str():
            return _text(value, shown)
        case list() | tuple():
            return "a list"
        case Mapping():
            return "a mapping"
        case PurePath():
            return "a path"
    return f"of the type {type(value).__name__}"


def _number(value: float, shown: re.Pattern[str] | None) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    if abs(value) >= 10**12:
        return "a very large number" if value > 0 else "a very small number"
    return repr(value) if shown else "a number"


def _text(value: str, shown: re.Pattern[str] | None) -> str:
    if not value.strip():
        return "blank text" if value else "empty text"
    if value != value.strip():
        return "text with a space or a line break at an end"
    if shown and shown.fullmatch(value):
        return f"{value!r}, which is text" if value.isdecimal() else repr(value)
    return f"text of {len(value)} character{'s' if len(value) > 1 else ''}"


def kinds_of(annotation: Any, metadata: Any = ()) -> Iterator[Kind]:
    """The kinds of a type's values: of the items of a list, of the values of a mapping."""
    for each in metadata:
        if isinstance(each, Kind):
            yield each
            return
        if isinstance(each, Choice):
            yield each.kind(annotation)
            return
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        yield from kinds_of(arguments[0], annotation.__metadata__)
    elif get_origin(annotation):
        for argument in arguments:
            yield from kinds_of(argument)


def example_of(annotation: Any, metadata: Any = ()) -> str:
    """A value of a type, as an inventory has it."""
    if hasattr(annotation, "__metadata__"):
        return example_of(get_args(annotation)[0], annotation.__metadata__)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if example := getattr(annotation, "EXAMPLE", None):
            return repr(example)
        required = {n: f for n, f in annotation.model_fields.items() if f.is_required()}
        pairs = (f"{n!r}: {example_of(f.annotation, f.metadata)}" for n, f in required.items())
        return f"{{{', '.join(pairs)}}}"
    if kind := next((each for each in metadata if isinstance(each, Kind | Choice)), None):
        return repr(get_args(annotation)[0] if isinstance(kind, Choice) else kind.example)
    examples = [example_of(each) for each in get_args(annotation) if each is not ...]
    if get_origin(annotation) is tuple:
        return f"[{examples[0]}]"
    if get_origin(annotation) is dict:
        return f"{{{examples[0]}: {examples[1]}}}"
    return examples[0] if examples else "…"
