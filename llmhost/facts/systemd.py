"""systemd units."""

import shlex
from collections.abc import Collection, Sequence

from pyinfra.api import FactBase

from llmhost.facts.lists import OfList
from llmhost.resources import script
from llmhost.system.overrides import Overrides, parse_overrides
from llmhost.system.systemd import OTHER, UnitState, parse_unit

_PROPERTIES = ",".join(
    [
        "LoadState",
        "ActiveState",
        "UnitFileState",
        "NeedDaemonReload",
        "ReloadResult",
        "ActiveEnterTimestamp",
        "StateChangeTimestamp",
        "ExecMainStartTimestamp",
    ]
)
_OF_OTHERS = "Id,LoadState,UnitFileState,NeedDaemonReload"

_SECONDS = 20
"""Timeout, longer than a busy daemon takes to answer."""


class Unit(FactBase[UnitState]):
    """State of a unit, and the time of the latest change to its configuration paths.

    A directory includes everything below it. The time is ctime, which changes even if a file is
    replaced by one with an older mtime. `needs_daemon_reload` also covers the units in `others`;
    `masked_others` lists which of them are masked. `question` is a shell command that succeeds if
    an active unit responds.
    """

    @staticmethod
    def default() -> UnitState:
        return UnitState()

    def command(
        self, unit: str, configuration: list[str], others: Sequence[str] = (), question: str = ""
    ) -> str:
        changed, of_others, silent = "", "", ""
        if configuration:
            paths = " ".join(shlex.quote(path) for path in configuration)
            changed = f"; find {paths} -printf 'Configured=%C@\\n' 2>/dev/null"
        if others:
            show = f"systemctl show --property={_OF_OTHERS} {shlex.join(others)} 2>/dev/null"
            of_others = f"; {show} | sed 's/^/{OTHER}/'"
        if question:
            active = f"systemctl is-active --quiet {shlex.quote(unit)}"
            asked = f"timeout {_SECONDS} sh -c {shlex.quote(question)} >/dev/null 2>&1"
            silent = f"; {active} && {{ {asked} || echo Silent=yes; }}"
        return (
            f"systemctl show --timestamp=us+utc --property={_PROPERTIES} {shlex.quote(unit)}"
            f" 2>/dev/null{of_others}{silent}{changed}; true"
        )

    def process(self, output: list[str]) -> UnitState:
        return parse_unit(output)


class EnabledUnits(FactBase[dict[str, str]]):
    """Whether units start at boot, from systemctl list-unit-files; units that do not exist are left
    out."""

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self, units: list[str]) -> str:
        listed = " ".join(shlex.quote(unit) for unit in units)
        return f"systemctl list-unit-files --no-legend --no-pager {listed} 2>/dev/null || true"

    def process(self, output: list[str]) -> dict[str, str]:
        return {unit: state for unit, state, *_ in map(str.split, output)}


class UnitOverrides(OfList[Overrides], FactBase[Overrides]):
    """Files that override the packaged configuration of units."""

    listed = "units"

    @staticmethod
    def default() -> Overrides:
        return Overrides()

    @staticmethod
    def part(value: Overrides, own: Collection[str]) -> Overrides:
        return value.of(own)

    def command(self, units: list[str]) -> str:
        return script("system/overrides.sh", *units)

    def process(self, output: list[str]) -> Overrides:
        return parse_overrides(output)
