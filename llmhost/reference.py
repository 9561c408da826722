"""Write docs/options.md from the settings classes; script/docs calls it."""

import re
import sys
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llmhost.services import catalogue
from llmhost.settings.base import Section
from llmhost.settings.root import RECORDS, component_sections

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
    for option, field in section.model_fields.items():
        cells = (f"`{prefix}{option}`", _type(field), _default(field), _flat(field.description))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())


def _type(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return f"`{re.sub(r'[a-z_]+[.]', '', text, flags=re.IGNORECASE)}`"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, tuple):
        value = [str(each) for each in value]
    return f"`{value if isinstance(value, int | float | list | dict) else str(value)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
