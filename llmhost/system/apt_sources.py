"""Package sources that a host's files name, in both of apt's formats: sources.list(5).

Pure: facts/apt.py reads the files.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, product

# apt ignores files with other characters in their names.
_LINE = re.compile(r"source (/etc/apt/sources\.list(?:\.d/[A-Za-z0-9_.-]+)?):(\d+):(.*)")
_ONE_LINE = re.compile(r"\s*deb(?:-src)?\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)")
_OFF = ("no", "false", "0", "off", "without", "disable")
_SIGNED_BY = re.compile(r"\bsigned-by=(\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Listed:
    """A line of a .list file, or a stanza of a .sources file with the line of its URIs. `sources`
    are pairs of a URI and a suite; `signed_by` is empty without a key of its own. A stanza that is
    not `enabled` is only kept."""

    path: str
    line: int
    sources: tuple[tuple[str, str], ...]
    signed_by: str = ""
    enabled: bool = True

    def names(self, uri: str, suite: str) -> bool:
        """Whether it has this source, as apt compares them."""
        return any(_same(each, uri) and other == suite for each, other in self.sources)

    def names_only(self, uri: str, suite: str) -> bool:
        """Whether it has no other source."""
        return all(_same(each, uri) and other == suite for each, other in self.sources)


def _same(found: str, uri: str) -> bool:
    """apt replaces $(ARCH) by the architecture, and adds a slash."""
    pattern = r"[a-z0-9]+".join(map(re.escape, found.rstrip("/").split("$(ARCH)")))
    return re.fullmatch(pattern, uri.rstrip("/")) is not None


def parse_sources(lines: Iterable[str]) -> tuple[Listed, ...]:
    """Output of files/apt/sources.sh."""
    told = (found.groups() for line in lines if (found := _LINE.fullmatch(line)))
    return tuple(
        each
        for path, group in groupby(told, key=lambda fields: fields[0])
        for each in _file(path, [(int(number), text) for _, number, text in group])
    )


def _file(path: str, lines: list[tuple[int, str]]) -> Iterator[Listed]:
    if path.endswith(".sources"):
        for filled, stanza in groupby(lines, key=lambda line: bool(line[1].strip())):
            if filled and (listed := _stanza(path, [*stanza])):
                yield listed
        return
    for number, text in lines:
        if found := _ONE_LINE.match(text):
            options, uri, suite = found.groups(default="")
            key = _SIGNED_BY.search(options)
            yield Listed(path, number, ((uri, suite),), key[1] if key else "")


def _stanza(path: str, lines: list[tuple[int, str]]) -> Listed | None:
    fields: dict[str, str] = {}
    place, name = lines[0][0], ""
    for number, text in lines:
        if not text[0].isspace():
            name, _, text = text.partition(":")
            name = name.strip().lower()
            place = number if name == "uris" else place
        fields[name] = f"{fields.get(name, '')} {text.strip()}".strip()
    enabled = fields.get("enabled", "").lower() not in _OFF
    sources = product(fields.get("uris", "").split(), fields.get("suites", "").split())
    return Listed(path, place, tuple(sources), fields.get("signed-by", ""), enabled)
