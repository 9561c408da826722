"""`llmhost page`: status, usage, plan and checks as one HTML file."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from llmhost.cli.arguments import Hosts, Inventory
from llmhost.cli.errors import DRIFT, ERROR, check_directory, stop
from llmhost.cli.gpus import monitoring_server
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.report import Run, gathered
from llmhost.cli.session import checked_hosts, site_hosts
from llmhost.cli.usage import seconds_since
from llmhost.cli.verify import client_keys, run_server_tests
from llmhost.inventory.site_reader import no_rules
from llmhost.status.page import USAGE, Overview, page
from llmhost.system.whole_file import write_file
from llmhost.verify.report import Report
from llmhost.version import toolkit

_NAME = "index.html"
Answers = Mapping[str, Mapping[str, Any] | str]
"""By part of the page: what a command printed, or why it did not."""


def write_page(
    inventory: Inventory,
    hosts: Hosts = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write to")] = Path(
        "page"
    ),
    since: Annotated[str, typer.Option(help="Usage: since then, such as 7d; default: all")] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Also run the checks of llmhost verify")
    ] = False,
) -> None:
    """Write status, usage, plan and checks of the hosts as one HTML page.

    The page has no scripts, loads nothing and changes nothing. Exit status: that of the worst part:
    0 all is fine, 2 something needs attention, 1 a host or a part could not be read.
    """
    limit = hosts or []
    check_directory(output)
    seconds_since(since)
    site_hosts(inventory, limit, no_rules)  # mistakes are reported once, and not by each part
    checks = _checks(inventory, limit) if verify else None
    overview = _overview(inventory, _ask(inventory, limit, since), checks)
    file = output / _NAME
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_file(file, page(overview))
    except OSError as error:
        stop(f"{error.filename or file}: {error.strerror}")
    for part, why in overview.problems.items():
        typer.echo(f"{part}: {why}", err=True)
    typer.echo(f"Page written to {file}")
    raise typer.Exit(ERROR if overview.failed else DRIFT if overview.needs_attention else 0)


def _ask(inventory: str, limit: Sequence[str], since: str) -> Answers:
    """Run the commands at the same time, each in a process: pyinfra keeps one State a process."""
    limits = [word for each in limit for word in ("--limit", each)]
    recent = ["--since", since] if since else []
    commands = {
        "status": ["status", inventory, *limit],
        "plan": ["plan", inventory, *limits],
        **{f"usage by {by}": ["usage", inventory, *limit, "--by", by, *recent] for by in USAGE},
    }
    if monitoring_server(site_hosts(inventory, [], no_rules)):
        commands["gpus"] = ["gpus", inventory, *limit]
    with ThreadPoolExecutor(len(commands)) as pool:
        return dict(zip(commands, pool.map(_run, commands.values()), strict=True))


def _run(words: Sequence[str]) -> Mapping[str, Any] | str:
    command = [sys.executable, "-m", "llmhost.cli", *words, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: Mapping[str, Any] = json.loads(ran.stdout)
    except ValueError:
        why = ran.stderr.strip().splitlines()[-1:]
        return why[0].removeprefix("error: ") if why else f"llmhost {words[0]} printed nothing"
    return found


def _overview(inventory: str, answers: Answers, checks: Report | None) -> Overview:
    found = {part: each for part, each in answers.items() if not isinstance(each, str)}
    about = toolkit()
    revision = f" ({str(about['revision'])[:12]})" if about["revision"] else ""
    return Overview(
        inventory=inventory,
        time=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        toolkit=f"{about['version']}{revision}",
        hosts=found.get("status", {}).get("hosts", ()),
        plans=found.get("plan", {}).get("hosts", ()),
        usage={by: found[f"usage by {by}"] for by in USAGE if f"usage by {by}" in found},
        gpus=found.get("gpus"),
        checks=checks,
        problems={part: each for part, each in answers.items() if isinstance(each, str)},
    )


def _checks(inventory: str, limit: Sequence[str]) -> Report:
    run = Run(inventory, limit, datetime.now(UTC))
    with TemporaryDirectory(prefix="llmhost-") as directory:
        records = Path(directory, "records")
        begun = time.monotonic()
        loaded = load_inventory(inventory)
        hosts = checked_hosts(loaded, limit)
        status = run_server_tests(hosts, {}, [], records, client_keys(loaded))
        return gathered(run, time.monotonic() - begun, records, status)
