"""The page that `llmhost verify --html` writes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmhost.cli.errors import writing
from llmhost.system.whole_file import write_file
from llmhost.verify.page import page
from llmhost.verify.report import Check, Report, Server, parse, unended
from llmhost.version import toolkit


@dataclass(frozen=True)
class Run:
    """One run of the server tests: its arguments and its start."""

    inventory: str
    limit: Sequence[str]
    begun: datetime


def write_page(place: Path, run: Run, seconds: float, records: Path, status: int) -> None:
    """Check the servers for drift with `llmhost plan`, and write the page. `seconds` is the
    duration of the run, `status` the exit status of its checks."""
    report = replace(gathered(run, seconds, records, status), **_plans(run))
    with writing(place):
        write_file(place, page(report))


def gathered(run: Run, seconds: float, records: Path, status: int) -> Report:
    """The results that the server tests recorded before they ended with this exit status."""
    whole, _, _ = records.read_text(encoding="utf-8").rpartition("\n")
    found = [parse(line) for line in whole.splitlines()]
    about = toolkit()
    revision = f" ({str(about['revision'])[:12]})" if about["revision"] else ""
    return Report(
        inventory=run.inventory,
        begun=run.begun.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seconds=seconds,
        toolkit=f"{about['version']}{revision}",
        servers=tuple(each for each in found if isinstance(each, Server)),
        checks=tuple(each for each in found if isinstance(each, Check)),
        succeeded=status == 0,
        unended=unended(found),
    )


def _plans(run: Run) -> dict[str, Any]:
    """The output of `llmhost plan`, run in its own process: pyinfra keeps one State a process."""
    limit = [word for each in run.limit for word in ("--limit", each)]
    command = [sys.executable, "-m", "llmhost.cli", "plan", run.inventory, "--json", *limit]
    planned = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return {"plans": json.loads(planned.stdout)["hosts"]}
    except ValueError:
        return {"plan_problem": planned.stderr.strip() or "llmhost plan printed nothing"}
