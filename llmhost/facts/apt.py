"""What dpkg has installed."""

import shlex

from pyinfra.api import FactBase

from llmhost.apt import Package, PackageDatabase

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
    packages: dict[str, Package] = {}
    for line in output:
        if line.count("|") == 3:
            package, version, want, status = line.split("|")
            packages[package] = Package(version, status, want == "hold")
    unfinished = tuple(key for key, value in packages.items() if value.status not in _SETTLED)
    journal = any(line.startswith("journal ") for line in output)
    return PackageDatabase(packages, unfinished, journal)
