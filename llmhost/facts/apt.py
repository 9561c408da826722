"""Installed packages, and apt's repositories."""

import base64
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.facts.lists import OfList
from llmhost.resources import script
from llmhost.system.apt import AptPackage, PackageDatabase
from llmhost.system.apt_sources import Listed, parse_sources
from llmhost.system.files import PathState

_SETTLED = {"installed", "config-files", "not-installed"}


class InstalledPackages(OfList[PackageDatabase], FactBase[PackageDatabase]):
    """The named packages, and any package that dpkg has left half-installed."""

    listed = "packages"

    @staticmethod
    def default() -> PackageDatabase:
        return PackageDatabase({})

    @staticmethod
    def part(value: PackageDatabase, own: Collection[str]) -> PackageDatabase:
        reported = {*own, *value.unfinished}
        packages = {name: found for name, found in value.packages.items() if name in reported}
        return replace(value, packages=packages)

    def command(self, packages: list[str]) -> str:
        names = shlex.quote(" ".join(packages))
        # One pass over the whole database: dpkg-query fails on an unknown name.
        return (
            "dpkg-query -W -f '${Package}|${Version}|${db:Status-Want}|${db:Status-Status}"
            "|${Architecture}\\n'"
            f" | awk -F'|' -v names={names} -v native=\"$(dpkg --print-architecture)\""
            ' \'BEGIN { OFS = FS; count = split(names, list, " ");'
            " for (i = 1; i <= count; i++) wanted[list[i]] = 1 }"
            # A library of another architecture (i386: Steam, Wine) has the same name.
            ' { other = $5 != native && $5 != "all" && $5 != ""; NF = 4 }'
            " $1 in wanted && !other || $4 !~ /^(installed|config-files|not-installed)$/';"
            # dpkg(1) keeps its journal there while it runs, and leaves it when it is killed.
            " ls /var/lib/dpkg/updates 2>/dev/null | sed 's/^/journal /'"
        )

    def process(self, output: list[str]) -> PackageDatabase:
        return parse_database(output)


def parse_database(output: list[str]) -> PackageDatabase:
    """Parse lines of `name|version|want|status`, and one `journal …` for each journal file."""
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
    """The state of a repository's paths, and the bytes of its key, empty if there is none. `listed`
    are the sources of all files."""

    paths: Mapping[str, PathState]
    key: bytes
    listed: tuple[Listed, ...] = ()


class RepositoryFiles(FactBase[RepositoryState]):
    """State of a repository's files, its installed key, and all sources of the host."""

    @staticmethod
    def default() -> RepositoryState:
        return RepositoryState({}, b"")

    def command(self, key: str, paths: list[str]) -> str:
        return (
            f"{PathStates().command(paths)};"
            f" printf 'key '; base64 -w0 {shlex.quote(key)} 2>/dev/null; echo;"
            f" {script('apt/sources.sh')}"
        )

    def process(self, output: list[str]) -> RepositoryState:
        encoded = next(line for line in output if line.startswith("key ")).removeprefix("key ")
        states = parse_states([line for line in output if not line.startswith(("key ", "source "))])
        listed = parse_sources(line for line in output if line.startswith("source "))
        return RepositoryState(states, base64.b64decode(encoded), listed)


class RemoteKey(FactBase[bytes]):
    """A repository's key, fetched by the host itself, with its proxy and trusted authorities.

    Empty if it cannot be fetched.
    """

    @staticmethod
    def default() -> bytes:
        return b""

    def command(self, url: str) -> str:
        # apt-helper(8) is part of apt: curl or wget is not needed.
        return (
            "file=$(mktemp) && /usr/lib/apt/apt-helper -qq download-file"
            f' {shlex.quote(url)} "$file" >&2 && base64 -w0 "$file"; rm -f "$file"'
        )

    def process(self, output: list[str]) -> bytes:
        return base64.b64decode("".join(output))
