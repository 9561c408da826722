"""The history of a host's deploys, and the owner of its lock.

Pure: operations/lock.py and journal.py communicate with the host; files/history/lock.sh keeps the
lock and the history there.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

SCHEMA = 1
LOCK = "/run/llmhost/deploy.lock"
"""The file that files/history/lock.sh locks on a host."""

Result = Literal["done", "failed", "cut off"]


@dataclass(frozen=True)
class Run:
    """One deploy of one host. `run` identifies the run; `begun` is ISO 8601, UTC; `changed` are the
    names of operations that changed something, in order; `failed` is the one that failed."""

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
class HistoryReport:
    """The output of `llmhost history --json`: the runs of one host, oldest first."""

    schema: int
    runs: tuple[Run, ...]


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
    revision = (run.revision or run.version)[:8] + ("+" if run.modified else "")
    result = f"{run.result}: {run.failed}" if run.failed else run.result
    return run.begun, run.by, revision, result, "\n".join(run.changed)
