"""`llmhost history` and `llmhost unlock`: the deploys of a host, and the lock of a running one."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from pyinfra.api import Host
from rich.markup import escape
from rich.table import Table

from llmhost.cli.arguments import HostName, Inventory
from llmhost.cli.console import table_console
from llmhost.cli.errors import complain, stop
from llmhost.cli.parallel import run_on_each
from llmhost.cli.session import as_root, connected, group_members, one_host
from llmhost.history.run_record import (
    SCHEMA,
    HistoryReport,
    apart,
    group_history,
    group_row,
    history,
    parse,
    table_row,
)
from llmhost.operations.inventory import site_host
from llmhost.resources import script

ANSWER_SECONDS = 60


def show_history(
    inventory: Inventory,
    host: HostName,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs history.schema.json")
    ] = False,
    last: Annotated[int, typer.Option(help="How many runs to show", min=1)] = 20,
) -> None:
    """Show who deployed to a host, when, from which revision, and what changed.

    Runs that had nothing to do are not recorded. A run on several members of an engine group is
    shown once, whichever of them is named.
    """
    name, group = group_members(inventory, host)
    report = _report(inventory, name, group, last)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    if report.group:
        title, rows = f"Engine group {', '.join(group)}", map(group_row, report.group)
        table_console().print(_table(title, rows, ("members",)))
    elif report.runs:
        table_console().print(_table(name, map(table_row, report.runs)))
    else:
        of = "this host" if len(group) == 1 else "these hosts"
        typer.echo(f"{', '.join(group)}: no deploy has changed {of} yet")
    _explain(report, inventory)


def _report(inventory: str, name: str, group: Sequence[str], last: int) -> HistoryReport:
    """The last runs of a host and of its group; stops if its own cannot be read."""
    with connected(inventory, group) as (state, messages):
        asked = {host: _question(host) for host in state.active_hosts}
        answers = run_on_each(asked, ANSWER_SECONDS)
        lost = {each: "; ".join(messages.about(each)) for each in group if each not in answers}
    unread = lost | {each: found.error for each, found in answers.items() if found.error}
    if name in unread:
        stop(f"{name}: {unread[name]}")
    read = [each for each in group if each not in unread]
    runs = {each: history(answers[each].output.splitlines()) for each in read}
    shown = tuple(group_history(runs)[-last:]) if len(group) > 1 else ()
    return HistoryReport(SCHEMA, tuple(runs[name][-last:]), shown, apart(shown, read), unread)


def _question(host: Host) -> str:
    path = shlex.quote(f"{site_host(host).settings.receipt.directory}/history.jsonl")
    return f"[ ! -e {path} ] || tail -n 500 {path}"


def _table(title: str, rows: Iterable[Sequence[str]], more: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    for column in ("begun", "by", "revision", *more, "result", "changed"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _explain(report: HistoryReport, inventory: str) -> None:
    """What the table of a group does not show."""
    for name in report.apart:
        typer.echo(
            f"{name}: no run above changed it together with another member; to see whether it is"
            f" behind, run llmhost plan {shlex.quote(inventory)}"
        )
    for name, why in report.unread.items():
        complain(f"{name}: its history could not be read: {why}")


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
