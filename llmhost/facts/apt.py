"""What dpkg has installed, and where apt takes packages from."""

import base64
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.system.apt import AptPackage, PackageDatabase
from llmhost.system.files import PathState

_SETTLED = {"installed", "config-files", "not-installed"}


class InstalledPackages(FactBase[PackageDatabase]):
    """The named packages, and any package that dpkg left between two states."""

    @staticmethod
    def default() -> PackageDatabase:
        return PackageDatabase({})

    def command(self, packages: list[str]) -> str:
        names = shlex.quote(" ".join(packages))
        # One pass over the whole database: dpkg-query fails on a name it never heard of.
        return (
            "dpkg-query -W -f '${Package}|${Version}|${db:Status-Want}|${db:Status-Status}\\n'"
            f" | awk -F'|' -v names={names}"
            ' \'BEGIN { count = split(names, list, " ");'
            " for (i = 1; i <= count; i++) wanted[list[i]] = 1 }"
            " $1 in wanted || $4 !~ /^(installed|config-files|not-installed)$/';"
            # dpkg(1) keeps its journal there while it works, and leaves it when it is killed.
            " ls /var/lib/dpkg/updates 2>/dev/null | sed 's/^/journal /'"
        )

    def process(self, output: list[str]) -> PackageDatabase:
        return parse_database(output)


def parse_database(output: list[str]) -> PackageDatabase:
    """Lines of `name|version|want|status`, and one `journal …` for each file of dpkg's journal."""
    packages: dict[str, AptPackage] = {}
    for line in output:
        if line.count("|") == 3:
            package, version, want, status = line.split("|")
            packages[package] = AptPackage(version, status, want == "hold")
    unfinished = tuple(key for key, value in packages.items() if value.status not in _SETTLED)
    journal = any(line.startswith("journal ") for line in output)
    return PackageDatabase(packages, unfinished, journal)


@dataclass(frozen=True)
class RepositoryState:
    """What stands at a repository's paths, and the bytes of its key, empty if there is none."""

    paths: Mapping[str, PathState]
    key: bytes


class RepositoryFiles(FactBase[RepositoryState]):
    """State of a repository's files, and its key as it is in place."""

    @staticmethod
    def default() -> RepositoryState:
        return RepositoryState({}, b"")

    def command(self, key: str, paths: list[str]) -> str:
        return (
            f"{PathStates().command(paths)};"
            f" printf 'key '; base64 -w0 {shlex.quote(key)} 2>/dev/null; echo"
        )

    def process(self, output: list[str]) -> RepositoryState:
        encoded = next(line for line in output if line.startswith("key ")).removeprefix("key ")
        states = parse_states([line for line in output if not line.startswith("key ")])
        return RepositoryState(states, base64.b64decode(encoded))


class RemoteKey(FactBase[bytes]):
    """A repository's key, fetched by the host itself: it knows its proxy and its authorities.

    Empty when it can not be had.
    """

    @staticmethod
    def default() -> bytes:
        return b""

    def command(self, url: str) -> str:
        # apt-helper(8) is part of apt: no curl or wget is needed.
        return (
            "file=$(mktemp) && /usr/lib/apt/apt-helper -qq download-file"
            f' {shlex.quote(url)} "$file" >&2 && base64 -w0 "$file"; rm -f "$file"'
        )

    def process(self, output: list[str]) -> bytes:
        return base64.b64decode("".join(output))
