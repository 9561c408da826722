"""The history of a host's deploys, and the owner of its lock.

Pure: operations/lock.py and journal.py communicate with the host; files/history/lock.sh keeps the
lock and the history there.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

SCHEMA = 1
LOCK = "/run/llmhost/deploy.lock"
"""The file that files/history/lock.sh locks on a host."""

Result = Literal["done", "failed", "cut off"]


@dataclass(frozen=True)
class Run:
    """One deploy of one host. `run` identifies the run, before a dot, and its host; `begun` is ISO
    8601, UTC; `changed` are the names of operations that changed something, in order; `failed` is
    the one that failed."""

    run: str
    by: str
    begun: str
    version: str
    revision: str | None
    modified: bool
    process: int
    result: Result = "cut off"
    changed: tuple[str, ...] = ()
    failed: str = ""

    def with_change(self, operation: str) -> "Run":
        """The run with one more change."""
        return replace(self, changed=(*self.changed, operation))

    def ended(self, result: Result, failed: str = "") -> "Run":
        """The run with its result."""
        return replace(self, result=result, failed=failed)

    @property
    def line(self) -> str:
        """One line of the history."""
        return json.dumps(asdict(self), ensure_ascii=True)


@dataclass(frozen=True)
class GroupRun:
    """One run on members of an engine group: `run` identifies it, and `members` is the part of each
    host that it changed."""

    run: str
    members: Mapping[str, Run]

    @property
    def begun(self) -> str:
        return min(each.begun for each in self.members.values())


@dataclass(frozen=True)
class HistoryReport:
    """The output of `llmhost history --json`: the runs of one host, oldest first. For a member of
    an engine group, also those of its group: `apart` are members that took part in none of these
    runs of the others, `unread` are those whose history could not be read, with the reason."""

    schema: int
    runs: tuple[Run, ...]
    group: tuple[GroupRun, ...] = ()
    apart: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)


def parse(line: str) -> Run | None:
    """A run from a line of the history; None if the line is not valid."""
    try:
        data = json.loads(line)
        return Run(**data | {"changed": tuple(data["changed"])})
    except (ValueError, TypeError, KeyError):
        return None


def history(lines: Iterable[str]) -> list[Run]:
    """All runs, oldest first; only the latest entry of a run that lost its connection."""
    found: dict[str, Run] = {}
    for run in filter(None, map(parse, lines)):
        found.pop(run.run, None)
        found[run.run] = run
    return list(found.values())


def run_on(run: str, host: str) -> str:
    """What identifies a run on one of its hosts: different for two names of the same machine, of
    which one must not take the lock of the other."""
    return f"{run}.{host}"


def group_history(runs: Mapping[str, Iterable[Run]]) -> list[GroupRun]:
    """The runs of several hosts together, oldest first."""
    found: dict[str, dict[str, Run]] = {}
    for host, theirs in runs.items():
        for each in theirs:
            found.setdefault(each.run.partition(".")[0], {})[host] = each
    entries = (GroupRun(run, members) for run, members in found.items())
    return sorted(entries, key=lambda entry: entry.begun)


def apart(entries: Iterable[GroupRun], members: Iterable[str]) -> tuple[str, ...]:
    """The members that took part in no run of another one. In runs of older releases, every host
    has an identity of its own, so these do not count."""
    known = [
        {*each.members} for each in entries if all("." in of.run for of in each.members.values())
    ]
    return tuple(
        name
        for name in members
        if any(name not in hosts for hosts in known)
        and not any(name in hosts and len(hosts) > 1 for hosts in known)
    )


def taken(owner: str, host: str) -> str:
    """The message for an operator whose host is locked by another run."""
    run = parse(owner)
    who = f"{run.by} (process {run.process})" if run else "someone"
    since = f" since {run.begun}" if run else ""
    return (
        f"{who} has been deploying to this host{since}; wait for that run to end, or, if it hangs,"
        f" run: llmhost unlock INVENTORY {host}"
    )


def table_row(run: Run) -> Sequence[str]:
    """Time, user, revision, result and changes, for display."""
    return run.begun, run.by, _revision(run), _result(run), "\n".join(run.changed)


def group_row(entry: GroupRun) -> Sequence[str]:
    """Time, user, revision, members, results and changes, for display; with the members of a result
    or a change that is not that of all."""
    runs = entry.members
    first = next(iter(runs.values()))
    results = _with_hosts({name: [_result(run)] for name, run in runs.items()})
    changes = _with_hosts({name: run.changed for name, run in runs.items()})
    return entry.begun, first.by, _revision(first), "\n".join(runs), results, changes


def _with_hosts(lines: Mapping[str, Iterable[str]]) -> str:
    """Each line once, with its hosts if these are not all."""
    found: dict[str, dict[str, None]] = {}
    for host, theirs in lines.items():
        for line in theirs:
            found.setdefault(line, {})[host] = None
    return "\n".join(
        line if len(hosts) == len(lines) else f"{line} ({', '.join(hosts)})"
        for line, hosts in found.items()
    )


def _revision(run: Run) -> str:
    return (run.revision or run.version)[:8] + ("+" if run.modified else "")


def _result(run: Run) -> str:
    return f"{run.result}: {run.failed}" if run.failed else run.result
