"""`llmhost history` and `llmhost unlock`: the deploys of a host, and the lock of a running one."""

import json
import shlex
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmhost.cli.arguments import HostName, Inventory
from llmhost.cli.session import as_root, one_host
from llmhost.history.run_record import SCHEMA, HistoryReport, Run, history, parse, table_row
from llmhost.operations.inventory import site_host
from llmhost.resources import script


def show_history(
    inventory: Inventory,
    host: HostName,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs history.schema.json")
    ] = False,
    last: Annotated[int, typer.Option(help="How many runs to show", min=1)] = 20,
) -> None:
    """Show who deployed to a host, when, from which revision, and what changed.

    Runs that had nothing to do are not recorded.
    """
    with one_host(inventory, host) as found:
        directory = site_host(found).settings.receipt.directory
        path = shlex.quote(f"{directory}/history.jsonl")
        text = as_root(found, f"[ ! -e {path} ] || tail -n 500 {path}")
    runs = history(text.splitlines())[-last:]
    if as_json:
        typer.echo(json.dumps(asdict(HistoryReport(SCHEMA, tuple(runs)))))
    elif runs:
        Console().print(_table(host, runs))
    else:
        typer.echo(f"{host}: no deploy has changed this host yet")


def _table(host: str, runs: list[Run]) -> Table:
    table = Table(title=host, title_justify="left", title_style="bold", expand=False)
    for column in ("begun", "by", "revision", "result", "changed"):
        table.add_column(column, overflow="fold")
    for run in runs:
        table.add_row(*map(escape, table_row(run)))
    return table


def unlock(inventory: Inventory, host: HostName) -> None:
    """Unlock a host that a hanging deploy has locked.

    A deploy that ended has always unlocked its host. This command does not stop the other
    deploy: make sure first that it no longer runs.
    """
    with one_host(inventory, host) as found:
        output = as_root(found, script("history/unlock.sh")).splitlines()
    if not output:
        typer.echo(f"{host}: not locked")
        return
    run = parse(output[0])
    owner = f"{run.by} (process {run.process}) since {run.begun}" if run else "an unknown run"
    typer.echo(f"{host}: unlocked; it was locked by {owner}")
