"""The difference of two CycloneDX documents. Pure.

`SbomChanges` is what `llmhost sbom diff --json` prints; docs/sbom-diff.schema.json describes it. A
change of these classes changes the schema: increase SCHEMA.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmhost.sbom.licences import licences_of

SCHEMA = 1


@dataclass(frozen=True)
class Change:
    """A component that differs. `place` is the `host`, a service, or `models`; `kind` is the type
    of a package, such as `deb` or `pypi`, or that of the component. Lists are of versions, which
    have hashes for containers and models, or of licenses if only those differ."""

    place: str
    kind: str
    name: str
    change: Literal["added", "removed", "version", "licence"]
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class SbomChanges:
    """The output of `llmhost sbom diff --json`. `before` and `after` name the host and the time of
    each document."""

    schema: int
    before: str
    after: str
    changes: tuple[Change, ...]


def read(text: str) -> dict[str, Any]:
    """A document. Raises ValueError, whose text continues the name of its file."""
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(found, dict) or found.get("bomFormat") != "CycloneDX":
        raise ValueError("is not a CycloneDX document in JSON")
    return found


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> SbomChanges:
    """What changed between two documents, in the order of places and names."""
    old, new = _entries(before), _entries(after)
    changes = []
    for key in sorted({*old, *new}):
        was, now = old.get(key, _NOTHING), new.get(key, _NOTHING)
        if was[0] != now[0]:
            change: Any = "version" if key in old and key in new else _only(key in new)
            changes.append(Change(*key, change, was[0], now[0]))
        elif was[1] != now[1]:
            changes.append(Change(*key, "licence", was[1], now[1]))
    return SbomChanges(SCHEMA, _title(before), _title(after), tuple(changes))


def _only(is_new: bool) -> str:
    return "added" if is_new else "removed"


def _title(document: Mapping[str, Any]) -> str:
    about = document.get("metadata", {})
    name = about.get("component", {}).get("name", "")
    return f"{name} {about.get('timestamp', '')}".strip()


_Key = tuple[str, str, str]
_Values = tuple[tuple[str, ...], tuple[str, ...]]
_NOTHING: _Values = ((), ())


def _entries(document: Mapping[str, Any]) -> dict[_Key, _Values]:
    """Versions and licenses of each component, by its place, kind and name."""
    found: dict[_Key, tuple[set[str], set[str]]] = {}
    for key, component in _walk(document.get("components", ()), "host"):
        versions, licences = found.setdefault(key, (set(), set()))
        versions.add(_version(component))
        licences.update(licences_of(component))
    return {key: (tuple(sorted(v)), tuple(sorted(n))) for key, (v, n) in found.items()}


def _walk(components: Any, place: str) -> Iterator[tuple[_Key, Mapping[str, Any]]]:
    for each in components:
        inside = _inside(each, place)
        yield (inside, _kind(each), str(each.get("name"))), each
        yield from _walk(each.get("components", ()), inside)


def _inside(component: Mapping[str, Any], place: str) -> str:
    """The place of a component and of those nested in it."""
    if component.get("type") == "machine-learning-model":
        return "models"
    if component.get("type") != "container":
        return place
    properties = {each["name"]: each.get("value", "") for each in component.get("properties", ())}
    return str(properties.get("llmhost:service") or component.get("name"))


def _kind(component: Mapping[str, Any]) -> str:
    url = str(component.get("purl", ""))
    is_library = component.get("type") == "library" and url.startswith("pkg:")
    return url[4:].partition("/")[0] if is_library else str(component.get("type"))


def _version(component: Mapping[str, Any]) -> str:
    """The version, with the hash of what has one: a tag can move."""
    hashes = [str(each.get("content"))[:12] for each in component.get("hashes", ())]
    return " ".join([str(component.get("version", "")), *hashes]).strip()
