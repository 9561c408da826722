"""What systemd runs."""

import shlex
from collections.abc import Sequence

from pyinfra.api import FactBase

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
"""Longer than a busy daemon takes to answer."""


class Unit(FactBase[UnitState]):
    """State of a unit, and when the newest of its configuration paths was changed.

    A directory counts with all that is below it. The time is ctime, which moves even when a file
    with an older mtime is put in place. `needs_daemon_reload` also tells of the units in `others`,
    and `masked_others` which of them are masked.
    Of a unit that is active, `question` is a shell command that succeeds if it answers.
    """

    @staticmethod
    def default() -> UnitState:
        return UnitState()

    def command(
        self, unit: str, configuration: list[str], others: Sequence[str] = (), question: str = ""
    ) -> str:
        newest, told, silent = "", "", ""
        if configuration:
            paths = " ".join(shlex.quote(path) for path in configuration)
            newest = f"$(find {paths} -printf '%C@\\n' 2>/dev/null | sort -n | tail -n1)"
        if others:
            show = f"systemctl show --property={_OF_OTHERS} {shlex.join(others)} 2>/dev/null"
            told = f"; {show} | sed 's/^/{OTHER}/'"
        if question:
            active = f"systemctl is-active --quiet {shlex.quote(unit)}"
            asked = f"timeout {_SECONDS} sh -c {shlex.quote(question)} >/dev/null 2>&1"
            silent = f"; {active} && {{ {asked} || echo Silent=yes; }}"
        return (
            f"systemctl show --timestamp=us+utc --property={_PROPERTIES} {shlex.quote(unit)}"
            f' 2>/dev/null{told}{silent}; echo "Configured={newest}"'
        )

    def process(self, output: list[str]) -> UnitState:
        return parse_unit(output)


class EnabledUnits(FactBase[dict[str, str]]):
    """Whether units start at boot, as systemctl list-unit-files says; those that do not exist are
    left out."""

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self, units: list[str]) -> str:
        listed = " ".join(shlex.quote(unit) for unit in units)
        return f"systemctl list-unit-files --no-legend --no-pager {listed} 2>/dev/null || true"

    def process(self, output: list[str]) -> dict[str, str]:
        return {unit: state for unit, state, *_ in map(str.split, output)}
