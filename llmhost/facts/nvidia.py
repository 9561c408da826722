"""Everything about NVIDIA on a host."""

import shlex

from pyinfra.api import FactBase

from llmhost.nvidia.state import NvidiaState, parse_state
from llmhost.resources import script


class Nvidia(FactBase[NvidiaState | None]):
    """One host's NVIDIA hardware, driver, toolkit and CDI specs, in one round trip.

    `patterns` are dpkg patterns of the packages to report, `mok_keys` the public keys to look up
    among the enrolled ones, `blacklist` a modprobe file that the initramfs must have taken in.
    Without NVIDIA hardware only that is reported, unless `wanted`. `root` is put before every
    path.
    """

    def command(
        self,
        patterns: list[str],
        mok_keys: list[str],
        blacklist: str,
        wanted: bool = False,
        root: str = "",
    ) -> str:
        lists = (" ".join(patterns), " ".join(mok_keys))
        return script("nvidia/state.sh", root, "yes" if wanted else "", *lists, blacklist)

    def process(self, output: list[str]) -> NvidiaState:
        return parse_state(output)


class OfferedVersions(FactBase[dict[str, list[str]]]):
    """Versions of packages that apt knows a source of, best first."""

    @staticmethod
    def default() -> dict[str, list[str]]:
        return {}

    def command(self, packages: list[str]) -> str:
        return f"apt-cache madison {shlex.join(packages)}"

    def process(self, output: list[str]) -> dict[str, list[str]]:
        offered: dict[str, list[str]] = {}
        for line in output:  # name | version | source
            fields = [field.strip() for field in line.split("|")]
            if len(fields) == 3:
                offered.setdefault(fields[0], []).append(fields[1])
        return offered
