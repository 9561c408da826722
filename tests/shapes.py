"""Shapes of JSON: what is compared of an answer whose values differ from run to run.

A shape is JSON whose leaves are `str`, `num` and `listN` for types, or values that must be equal.
A list has the shape of its first element.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Texts of `literal` keys are equal, unless they contain `place`; of objects at `open_keys`
    only the keys in `common` are compared."""

    literal: Collection[str] = ()
    open_keys: Collection[str] = ()
    common: Collection[str] = ()
    place: str = "\0"

    def differences(self, found: object, expected: object, key: str = "") -> Iterator[str]:
        """How an answer differs from a shape."""
        if isinstance(expected, dict):
            yield from self._of_objects(found, expected, key)
        elif isinstance(expected, list):
            if not isinstance(found, list) or not found:
                yield f"{key}: {found!r} is no list with an element"
            else:
                yield from self.differences(found[0], expected[0], key)
        elif not self._agrees(found, expected, key):
            yield f"{key}: {found!r} instead of {expected!r}"

    def _of_objects(self, found: object, expected: Json, key: str) -> Iterator[str]:
        if not isinstance(found, dict):
            yield f"{key}: {found!r} is no object"
            return
        is_open = key in self.open_keys
        wanted = {name for name in expected if not is_open or name in self.common}
        if not is_open and found.keys() != wanted:
            yield f"{key}: has {sorted(found)} instead of {sorted(wanted)}"
        for name in wanted & found.keys():
            yield from self.differences(found[name], expected[name], name)

    def _agrees(self, found: object, expected: object, key: str) -> bool:
        if expected == "num":
            return isinstance(found, int | float) and not isinstance(found, bool)
        if isinstance(expected, str) and re.fullmatch(r"list\d+", expected):
            return isinstance(found, list) and (expected == "list0") == (not found)
        if isinstance(expected, str):
            fixed = key in self.literal and expected != "str" and self.place not in expected
            return isinstance(found, str) and (not fixed or found == expected)
        return found == expected


def shape(value: object, literal: Collection[str], key: str = "") -> object:
    """The shape of a recorded answer, with the texts of `literal` keys as they are."""
    match value:
        case dict():
            return {name: shape(each, literal, name) for name, each in value.items()}
        case list() if value and isinstance(value[0], dict | list):
            return [shape(value[0], literal)]
        case list():
            return f"list{len(value)}"
        case bool() | None:
            return value
        case int() | float():
            return "num"
    return value if key in literal else "str"
