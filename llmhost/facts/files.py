"""The state of a list of paths."""

import shlex
from collections.abc import Collection

from pyinfra.api import FactBase

from llmhost.facts.lists import OfList
from llmhost.system.files import PathState

_KINDS = {"regular file": "file", "regular empty file": "file", "directory": "directory"}
_KINDS["symbolic link"] = "link"


class PathStates(OfList[dict[str, PathState]], FactBase[dict[str, PathState]]):
    """State of many paths in one round trip; a path that does not exist is left out.

    With `under`, every file below that directory is reported as well.
    """

    listed = "paths"

    @staticmethod
    def default() -> dict[str, PathState]:
        return {}

    @staticmethod
    def part(value: dict[str, PathState], own: Collection[str]) -> dict[str, PathState]:
        return {path: state for path, state in value.items() if path in own}

    def command(self, paths: list[str], under: str | None = None) -> str:
        listed = " ".join(shlex.quote(path) for path in paths) or "/nonexistent"
        found = f" $(find {shlex.quote(under)} ! -type d 2>/dev/null)" if under else ""
        return (
            f"set -- {listed}{found};"
            " stat --printf '%F|%U|%G|%a|%.Y|%n\\n' -- \"$@\" 2>/dev/null;"
            ' for path; do [ -f "$path" ] && [ ! -L "$path" ] && printf \'%s\\0\' "$path"; done'
            " | xargs -0r sha256sum 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> dict[str, PathState]:
        return parse_states(output)


def parse_states(output: list[str]) -> dict[str, PathState]:
    """Parse lines of `stat` (kind|owner|group|mode|mtime|path) and of `sha256sum`."""
    stats: dict[str, list[str]] = {}
    hashes: dict[str, str] = {}
    for line in output:
        if line.count("|") >= 5:
            *fields, path = line.split("|", 5)
            stats[path] = fields
        else:
            digest, _, path = line.partition("  ")
            hashes[path] = digest
    return {path: _state(fields, hashes.get(path)) for path, fields in stats.items()}


def _state(fields: list[str], sha256: str | None) -> PathState:
    kind, owner, group, mode, modified = fields
    return PathState(
        _KINDS.get(kind, "other"), owner, group, mode.zfill(4), float(modified), sha256
    )
