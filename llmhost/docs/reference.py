"""Write docs/options.md from the settings classes; script/docs calls it."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llmhost.options.base import Section
from llmhost.options.derive import Compress, Derive, Evaluation, Onnx
from llmhost.options.kind import Choice, Kind
from llmhost.options.model import ModelFile
from llmhost.options.parameters import Parameters
from llmhost.options.shape import Shape
from llmhost.options.training import TrainingEvaluation
from llmhost.services import catalogue
from llmhost.services.base import ServiceOptions
from llmhost.settings import RECORDS, component_sections

_HEAD = """# Options

Generated from the settings classes; do not edit. Each option is a key of the inventory: data of a
host, of a group, or in `group_data/`. pyinfra combines the levels: `--data` overrides a host's
data, that overrides a group's, and that overrides the group `all`. An option that is not declared
has its default. An unknown key is refused.

Write numbers without quotes, and True or False only where they are listed: `"8080"` and `True` are
not ports. Sizes of memory and disks are in GiB or MiB (1024-based), durations in seconds."""


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
    yield from _section("`derive` of a model", Derive, "")
    yield from _section("`onnx` of a model's `derive`", Onnx, "")
    yield from _section("`compress` of a model's `derive`", Compress, "")
    yield from _section("Each `evaluate` of a model's `derive`", Evaluation, "")
    yield from _section("`evaluate` of a training job", TrainingEvaluation, "")
    yield from _section("`parameters` of a model", Parameters, "")
    yield from _section("`shape` of a model", Shape, "")
    yield from _section("Every service: `SERVICE_*`", ServiceOptions, "SERVICE_")
    yield "\nThe sections below list what a service adds to these options, or changes."
    for name, service in catalogue().items():
        own = [each for each in service.options.model_fields if _is_own(service.options, each)]
        yield from _section(f"Service `{name}`: `{name}_*`", service.options, f"{name}_", own)


def _is_own(section: type[ServiceOptions], option: str) -> bool:
    """Whether a service adds an option to those of every service, or changes one."""
    owner = next(each for each in section.__mro__ if option in inspect.get_annotations(each))
    return owner is not ServiceOptions


def _list_of_services() -> Iterator[str]:
    names = ", ".join(f"`{name}`" for name in catalogue())
    yield "\n## `services`: a list of names\n"
    yield f"Services of the stack; the first answers at the gateway's `/`. Known: {names}."


def _section(
    title: str, section: type[Section], prefix: str, only: Collection[str] | None = None
) -> Iterator[str]:
    yield f"\n## {title}\n"
    if only is None:
        yield _flat(section.__doc__ or "") + "\n"
    yield "| option | value | default | |\n| --- | --- | --- | --- |"
    documented = _documentation(section)
    for option, field in section.model_fields.items():
        if only is not None and option not in only:
            continue
        cells = (
            f"`{prefix}{option}`",
            _code(_type(field.annotation, field.metadata, with_example=field.is_required())),
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


def _code(text: str) -> str:
    """Values in quotes as code."""
    return re.sub(r"(?<!\w)'[^']*'", lambda quoted: f"`{quoted.group()}`", text)


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())


def _type(annotation: Any, metadata: Any = (), *, with_example: bool = False) -> str:
    """What an option takes: `a list; each item: a network in CIDR notation`."""
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0], annotation.__metadata__, with_example=with_example)
    for each in metadata:
        if isinstance(each, Kind):
            return each.described if with_example else each.expected
        if isinstance(each, Choice):
            return each.kind(annotation).expected
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "a record"
    if get_origin(annotation) is tuple:
        return f"a list; each item: {_type(arguments[0], with_example=True)}"
    if get_origin(annotation) is dict:
        name, value = (_type(each, with_example=True) for each in arguments)
        return f"a mapping; each name: {name}; each value: {value}"
    one, _none = arguments
    return f"{_type(one, with_example=True)}; or None"


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
