"""Licenses of packages: names that every source spells differently, and a table of all. Pure."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

UNKNOWN = "unknown"

# Names of Debian (copyright-format 1.0) and Fedora, and classifiers of PyPI, for licenses that SPDX
# has an identifier for.
_SPDX = {
    "expat": "MIT",
    "asl 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "apache": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "mpl-1.1": "MPL-1.1",
    "mpl-2.0": "MPL-2.0",
    "gfdl-1.3+": "GFDL-1.3-or-later",
    "zlib": "Zlib",
    "mit license": "MIT",
    "apache software license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
}
_GNU = re.compile(r"(A|L)?GPL(?:-|v)?(\d)(?:\.(\d))?(\+|-or-later|-only)?", re.IGNORECASE)


@cache
def spdx(name: str) -> str:
    """The SPDX identifier of a license; a name without one does not change."""
    short = name.removesuffix(" license").strip() if name.lower().startswith("gpl") else name
    if gnu := _GNU.fullmatch(short):
        family, major, minor, later = gnu.groups()
        # Without a digit after the point, Debian means `.0`, as in LGPL-2 and LGPL-2.1.
        ending = "or-later" if later in ("+", "-or-later") else "only"
        return f"{(family or '').upper()}GPL-{major}.{minor or 0}-{ending}"
    return _SPDX.get(name.lower(), name)


@dataclass(frozen=True)
class LicenceUse:
    """A license, and the components that have it, as `NAME VERSION`."""

    licence: str
    components: tuple[str, ...]


def components_of(document: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """All components of a CycloneDX document, nested ones included."""
    todo = [*document.get("components", ())]
    while todo:
        each = todo.pop(0)
        yield each
        todo += each.get("components", ())


def licences_of(component: Mapping[str, Any]) -> tuple[str, ...]:
    """The licenses of a component, or `unknown`."""
    found = []
    for each in component.get("licenses", ()):
        licence = each.get("license", {})
        found.append(each.get("expression") or licence.get("id") or licence.get("name") or "")
    return tuple(filter(None, found)) or (UNKNOWN,)


def licence_table(documents: Iterable[Mapping[str, Any]]) -> list[LicenceUse]:
    """Every license of several documents; the most frequent one first. A component with several
    licenses is in several rows."""
    uses: dict[str, dict[str, None]] = {}
    for document in documents:
        for component in components_of(document):
            label = f"{component['name']} {component.get('version', '')}".strip()
            for licence in licences_of(component):
                uses.setdefault(licence, {})[label] = None
    rows = [LicenceUse(licence, tuple(sorted(labels))) for licence, labels in uses.items()]
    return sorted(rows, key=lambda row: (-len(row.components), row.licence))


def as_csv(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each component and license, with the host."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("licence", "type", "name", "version", "host"))
    rows: Sequence[tuple[str, ...]] = sorted(
        {
            (licence, each["type"], each["name"], str(each.get("version", "")), host)
            for host, document in documents.items()
            for each in components_of(document)
            for licence in licences_of(each)
        }
    )
    writer.writerows(rows)
    return text.getvalue()
