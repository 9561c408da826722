"""A table of nftables, compared with the file that declares it.

Pure: the state comes from facts/nftables.py, the commands are run by operations/nftables.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from llmhost.system.files import Entry, File, PathState, differences


@dataclass(frozen=True)
class TableState:
    """Whether a table is loaded; its rules in the file that are not loaded, and loaded rules that
    are not in the file. `paths` are the states of its file and of others."""

    paths: Mapping[str, PathState] = field(default_factory=dict)
    loaded: bool = False
    missing: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


_MARK = "table "
"""Prefix of the lines of files/firewall/table.sh."""


def parse_table(output: Iterable[str], paths: Mapping[str, PathState]) -> TableState:
    """Parse the lines of files/firewall/table.sh among the output; others are left out."""
    lines = [line.removeprefix(_MARK) for line in output if line.startswith(_MARK)]
    return TableState(
        paths=paths,
        loaded="loaded" in lines,
        missing=tuple(line[2:] for line in lines if line.startswith("< ")),
        foreign=tuple(line[2:] for line in lines if line.startswith("> ")),
    )


@dataclass(frozen=True)
class TablePlan:
    """Entries to write, whether the table must be loaded or removed, and why. No reasons: nothing
    to do."""

    entries: tuple[Entry, ...]
    wanted: bool
    reasons: tuple[str, ...]


def plan(table: str, entries: Iterable[Entry], rules: str, found: TableState) -> TablePlan:
    """Compare a table and its files with the host. `rules` is the path of the file that declares
    it; if that must not exist, neither may the table."""
    entries = tuple(entries)
    wanted = any(isinstance(each, File) and each.path == rules for each in entries)
    wrong = differences(entries, found.paths)
    outdated = any(each.path == rules for each in wrong)
    reasons = (*wrong.values(), *_drift(table, found, wanted=wanted, outdated=outdated))
    return TablePlan(tuple(wrong), wanted, reasons)


def _drift(table: str, state: TableState, *, wanted: bool, outdated: bool) -> Iterator[str]:
    """`outdated`: the file will be replaced, so a comparison with it says nothing."""
    if wanted != state.loaded:
        yield f"the nftables table {table} is {'not loaded' if wanted else 'loaded'}"
    elif wanted and not outdated:
        yield from (f"'{rule}' is no longer loaded" for rule in state.missing)
        yield from (f"'{rule}' was added to the nftables table {table}" for rule in state.foreign)
