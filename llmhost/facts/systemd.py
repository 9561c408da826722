"""systemd units."""

import hashlib
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

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
_SHOWN, _ANSWER = "unit:", "answer:"
_OF_OTHERS = "Id,LoadState,UnitFileState,NeedDaemonReload"

_SECONDS = 20
"""Timeout, longer than a busy daemon takes to answer."""


def _show(*units: str) -> str:
    show = f"systemctl show --timestamp=us+utc --property={_PROPERTIES}"
    return f"{show} {shlex.join(units)} 2>/dev/null"


@dataclass(frozen=True)
class UnitQuestion:
    """What to read about a unit: its state, and the time of the latest change to its configuration
    paths.

    A directory includes everything below it. The time is ctime, which changes even if a file is
    replaced by one with an older mtime. The state also says which units in `others` need a
    daemon-reload or are masked. `question` is a shell command that succeeds if an active unit
    responds.
    """

    unit: str
    configuration: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    question: str = ""

    @property
    def command(self) -> str:
        """Shell command that prints what `parse_unit` reads."""
        return "; ".join(filter(None, [_show(self.unit), self.more, "true"]))

    @property
    def key(self) -> str:
        """Identifies the answer in the output."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @property
    def more(self) -> str:
        """Shell command for what `systemctl show` of the unit does not say."""
        commands = []
        if self.others:
            show = f"systemctl show --property={_OF_OTHERS} {shlex.join(self.others)} 2>/dev/null"
            commands.append(f"{show} | sed 's/^/{OTHER}/'")
        if self.question:
            active = f"systemctl is-active --quiet {shlex.quote(self.unit)}"
            asked = f"timeout {_SECONDS} sh -c {shlex.quote(self.question)} >/dev/null 2>&1"
            commands.append(f"{active} && {{ {asked} || echo Silent=yes; }}")
        if self.configuration:
            commands.append(
                f"find {shlex.join(self.configuration)} -printf 'Configured=%C@\\n' 2>/dev/null"
            )
        return "; ".join(commands)


class Units(OfList[Mapping[str, UnitState]], FactBase[Mapping[str, UnitState]]):
    """States of units, by the keys of their questions: systemctl is started once for all."""

    listed = "questions"

    @staticmethod
    def default() -> Mapping[str, UnitState]:
        return {}

    @staticmethod
    def part(
        value: Mapping[str, UnitState], own: Collection[UnitQuestion]
    ) -> Mapping[str, UnitState]:
        return {each.key: value.get(each.key, UnitState()) for each in own}

    def command(self, questions: list[UnitQuestion]) -> str:
        commands = [f"{_show(*(each.unit for each in questions))} | sed 's/^/{_SHOWN}/'"]
        for each in questions:
            commands += filter(None, [f"echo {_ANSWER}{each.key}", each.more])
        return "; ".join([*commands, "true"])

    def process(self, output: list[str]) -> Mapping[str, UnitState]:
        shown = [line.removeprefix(_SHOWN) for line in output if line.startswith(_SHOWN)]
        blocks = [block.splitlines() for block in "\n".join(shown).split("\n\n") if block.strip()]
        more: dict[str, list[str]] = {}
        for line in output:
            if line.startswith(_ANSWER):
                more[line.removeprefix(_ANSWER)] = []
            elif more:
                [*more.values()][-1].append(line)
        if blocks and len(blocks) != len(more):
            raise FactProcessError(f"systemctl shows {len(blocks)} of {len(more)} units")
        blocks = blocks or [[] for _ in more]
        return {
            key: parse_unit([*block, *lines])
            for (key, lines), block in zip(more.items(), blocks, strict=True)
        }


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
