"""What benchmarks look at on a server, and whether it passes or why it is accepted otherwise.

The items are data: files/hardening/items.toml. Pure: cli/hardening.py runs the script on a host.
"""

import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from llmhost.resources import FILES, script_text

SCHEMA = 1
_CIS = 'system_hardening = "cis" sets it'
_RUN = """
item() {
    passed=no accepted=yes
    [ -z "$2" ] || ! (eval "$2") >/dev/null 2>&1 || passed=yes
    [ -z "$3" ] || (eval "$3") >/dev/null 2>&1 || accepted=no
    echo "item $1 $passed $accepted"
}
"""


@dataclass(frozen=True)
class Item:
    """One item; the fields are those of the file."""

    id: str
    title: str
    check: str = ""
    accepted: str = ""
    only_if: str = ""
    level: Literal["", "cis"] = ""


Outcome = Literal["passed", "accepted", "failed"]


@dataclass(frozen=True)
class Verdict:
    """What was found; `reason` says why an item is accepted."""

    item: Item
    outcome: Outcome
    reason: str = ""


@cache
def items() -> tuple[Item, ...]:
    """All items, in the order of the file."""
    found = tomllib.loads((FILES / "hardening/items.toml").read_text(encoding="utf-8"))
    return tuple(Item(**each) for each in found["items"])


def script(of: Sequence[Item]) -> str:
    """Shell script for root that prints what it finds about each item."""
    calls = (
        f"item {number} {shlex.quote(each.check)} {shlex.quote(each.only_if)}"
        for number, each in enumerate(of)
    )
    return "\n".join([script_text("hardening/functions.sh"), _RUN, *calls])


def verdicts(of: Sequence[Item], output: str, level: str) -> Iterator[Verdict]:
    """From the script's output, for a level of hardening. Raises ValueError if it is incomplete."""
    lines = [line.split()[1:] for line in output.splitlines() if line.startswith("item ")]
    found = {int(number): (passed == "yes", allowed == "yes") for number, passed, allowed in lines}
    if len(found) != len(of):
        raise ValueError(f"{len(found)} of {len(of)} items were checked")
    for number, each in enumerate(of):
        yield _verdict(each, *found[number], level)


def _verdict(item: Item, passed: bool, allowed: bool, level: str) -> Verdict:
    if passed:
        return Verdict(item, "passed")
    if item.accepted and allowed:
        return Verdict(item, "accepted", item.accepted)
    if item.level == "cis" and level != "cis":
        return Verdict(item, "accepted", _CIS)
    return Verdict(item, "failed")


@dataclass(frozen=True)
class ItemReport:
    """An item on a host."""

    id: str
    title: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class HostHardening:
    """All items of a host; `counts` by outcome, `hardening` is what the inventory says."""

    host: str
    hardening: str
    counts: Mapping[str, int]
    items: tuple[ItemReport, ...]


@dataclass(frozen=True)
class HardeningReport:
    """The output of `llmhost verify --hardening --json`."""

    schema: int
    hosts: tuple[HostHardening, ...]


def host_hardening(host: str, hardening: str, found: Sequence[Verdict]) -> HostHardening:
    """The report on one host."""
    items = (ItemReport(each.item.id, each.item.title, each.outcome, each.reason) for each in found)
    return HostHardening(host, hardening, count(found), tuple(items))


def count(of: Iterable[Verdict]) -> dict[str, int]:
    """Verdicts by outcome."""
    outcomes = [each.outcome for each in of]
    return {outcome: outcomes.count(outcome) for outcome in ("passed", "accepted", "failed")}
