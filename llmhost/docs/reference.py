"""Write docs/options.md from the settings classes; script/docs calls it."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llmhost.options.base import Section
from llmhost.options.model import ModelFile
from llmhost.options.parameters import Parameters
from llmhost.options.shape import Shape
from llmhost.services import catalogue
from llmhost.settings import RECORDS, component_sections

_NAMES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`True` or `False`",
    object: "anything",
    NoneType: "none",
    IPv4Address: "address",
    IPv6Address: "address",
    IPv4Interface: "address with prefix length",
    IPv6Interface: "address with prefix length",
    IPv4Network: "network",
    IPv6Network: "network",
    date: "date",
    datetime: "time",
}

_HEAD = """# Options

Made from the settings classes; do not edit. Each option is a key of the inventory: data of a
host, of a group, or in `group_data/`. How the levels combine is pyinfra's rule: `--data` beats a
host's data, that beats a group's, and that beats the group `all`. What is not written has the
default given here. A key that is not listed is refused."""


def reference() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for name, section in component_sections().items():
        yield from _section(f"`{name}_*`", section, f"{name}_")
    yield from _list_of_services()
    for name, record in RECORDS.items():
        yield from _section(f"`{name}`: a list of records", record, "")
    yield from _section("Each of the `files` of a model", ModelFile, "")
    yield from _section("`parameters` of a model", Parameters, "")
    yield from _section("`shape` of a model", Shape, "")
    for name, service in catalogue().items():
        yield from _section(f"Service `{name}`: `{name}_*`", service.options, f"{name}_")


def _list_of_services() -> Iterator[str]:
    names = ", ".join(f"`{name}`" for name in catalogue())
    yield "\n## `services`: a list of names\n"
    yield f"Services of the stack; the first answers at the gateway's `/`. Known: {names}."


def _section(title: str, section: type[Section], prefix: str) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield _flat(section.__doc__ or "")
    yield "\n| option | type | default | |\n| --- | --- | --- | --- |"
    documented = _documentation(section)
    for option, field in section.model_fields.items():
        cells = (
            f"`{prefix}{option}`",
            _type(field.annotation),
            _default(field),
            _flat(documented.get(option)),
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _documentation(section: type[Section]) -> dict[str, str]:
    """The string below each field, those of base classes included."""
    found: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        if issubclass(owner, Section):
            found |= _strings_below_fields(owner)
    return found


def _strings_below_fields(owner: type[Section]) -> Iterator[tuple[str, str]]:
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(ast.Constant(str(text))):
                    yield field.target.id, inspect.cleandoc(text)


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())


def _type(annotation: Any) -> str:
    """A type in words: `list of network`, `text or none`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(argument) for argument in arguments))
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin in (dict, Mapping):
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Section):
        return "see below"
    if isinstance(value, tuple):
        value = [str(each) for each in value]
    return f"`{value if isinstance(value, int | float | list | dict) else str(value)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
