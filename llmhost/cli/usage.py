"""`llmhost usage`: who uses the gateway, and how much."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from llmhost.cli.arguments import Inventory
from llmhost.cli.console import table_console
from llmhost.cli.errors import ERROR, stop
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.parallel import run_on_each
from llmhost.cli.session import checked_site, connected, hosts_within
from llmhost.inventory.site_reader import no_rules, no_site_rules
from llmhost.status.logs import seconds_of
from llmhost.status.usage import By, UsageReport, as_csv, entry_hosts, report, usage_command
from llmhost.units import duration, gib

_ANSWER_SECONDS = 600
_NOBODY = {
    By.CLIENT: "no valid key",
    By.ROUTE: "no route",
    By.MODEL: "not known",
    By.VARIANT: "not chosen by model",
}


def usage(
    inventory: Inventory,
    hosts: Annotated[
        list[str] | None,
        typer.Argument(metavar="HOST", help="Hosts, patterns or groups; default: see below"),
    ] = None,
    by: Annotated[By, typer.Option(help="What a row is for")] = By.CLIENT,
    client: Annotated[str, typer.Option(help="Only the requests of this client")] = "",
    since: Annotated[
        str, typer.Option(help="Only requests not older than this, such as 12h or 7d; default: all")
    ] = "",
    as_csv_: Annotated[bool, typer.Option("--csv", help="As CSV")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs usage.schema.json")
    ] = False,
) -> None:
    """Show who uses the gateway: requests, errors, tokens and bytes by client, model, day.

    The sums are those of the access log, which the server keeps for gateway_log_days. Tokens and
    models need gateway_count_tokens; only the `counted` requests have tokens. Without
    hosts, of all hosts that clients call: not of servers behind a gateway. Exit status: 0, or 1 if
    a host could not be reached, or a file of its log not be read to the end.
    """
    if as_csv_ and as_json:
        stop("--csv and --json exclude each other; give one of them")
    seconds = seconds_since(since)
    found = _read(inventory, hosts or [], seconds, by, client)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    elif as_csv_:
        typer.echo(as_csv(found), nl=False)
    else:
        if found.rows or not found.errors:
            table_console().print(_table(found) if found.rows else "no requests")
    for host, error in found.errors.items():
        typer.echo(f"{host}: {error}", err=True)
    for host, files in found.damaged.items():
        for name, why in files.items():
            typer.echo(
                f"{host}: part of {name} cannot be read ({why}): requests are missing", err=True
            )
    raise typer.Exit(ERROR if found.errors or found.damaged else 0)


def seconds_since(since: str) -> int:
    """The seconds of an age, such as 12h; 0 if there is none. Stops if it is not one."""
    try:
        return seconds_of(since) if since else 0
    except ValueError:
        stop(f"--since {since} is not an age; write one such as 12h or 7d")


def _read(path: str, limit: list[str], seconds: int, by: By, client: str) -> UsageReport:
    return report(*sums_of(path, gateways_of(path, limit), seconds), by, client)


def gateways_of(path: str, limit: list[str]) -> list[str]:
    """The hosts within a limit that clients call; stops if there is none."""
    inventory = load_inventory(path)
    within = hosts_within(inventory, limit)
    site = checked_site(inventory, [*inventory] if not limit else within, no_rules, no_site_rules)
    names = entry_hosts(site, (host.name for host in within))
    if not names:
        stop("none of these hosts has a gateway")
    return names


def sums_of(path: str, names: list[str], seconds: int) -> tuple[dict[str, str], dict[str, str]]:
    """What files/usage/read.py prints on each of these hosts, and why there is nothing."""
    with connected(path, names, strict=False) as (state, messages):
        commands = {host: usage_command(seconds) for host in state.active_hosts}
        answers = run_on_each(commands, _ANSWER_SECONDS, json.loads)
    outputs = {name: each.output for name, each in answers.items() if not each.error}
    errors = {name: each.error for name, each in answers.items() if each.error}
    for name in names:
        if name not in answers:
            errors[name] = messages.about(name)[-1]
    return outputs, errors


def _table(found: UsageReport) -> Table:
    known = [time for time in found.oldest.values() if time]
    title = f"requests since {min(known)}" if known else "no requests"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(found.by.value, overflow="fold")
    for column in ("requests", "errors", "refused", "aborted", "time", "in", "out"):
        table.add_column(column, justify="right", no_wrap=True)
    tokens = any(row.counted for row in found.rows)
    for column in ("counted", "tokens in", "tokens out") if tokens else ():
        table.add_column(column, justify="right")
    for row in found.rows:
        name = row.name or _NOBODY.get(found.by, "")
        counts = map(str, (row.requests, row.errors, row.refused, row.aborted))
        sizes = gib(row.bytes_in), gib(row.bytes_out)
        counted = map(str, (row.counted, row.tokens_in, row.tokens_out) if tokens else ())
        table.add_row(escape(name), *counts, duration(row.seconds), *sizes, *counted)
    return table
