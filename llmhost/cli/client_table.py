"""What `llmhost key list` prints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import typer
from pydantic import TypeAdapter, ValidationError
from rich.markup import escape
from rich.table import Table

from llmhost.cli.console import table_console
from llmhost.cli.errors import DRIFT, ERROR, stop
from llmhost.cli.inventory_file import inventory_data
from llmhost.options.gateway import ApiClient
from llmhost.status.keys import KeyReport, KeyStatus, Uses, key_report, uses_of

Clients = Mapping[str, Sequence[ApiClient]]


def print_clients(inventory: str, *, ask: bool, age: timedelta | None, as_json: bool) -> int:
    """Print each host's clients; returns the exit status. Stops if `api_clients` is invalid."""
    data = inventory_data(inventory)
    clients = {host: _records(each.get("api_clients")) for host, each in data.items()}
    uses, errors = _uses(inventory) if ask or age else (None, {})
    report = key_report(clients, datetime.now(UTC), uses, age, errors)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        _print(report, clients, asked=uses is not None)
    for host, error in errors.items():
        typer.echo(f"{host}: {error}", err=True)
    if errors:
        return ERROR
    return DRIFT if any(each.attention for each in report.keys) else 0


def _uses(inventory: str) -> tuple[Uses, dict[str, str]]:
    """When keys were last used, and the hosts whose logs could not be read."""
    from llmhost.cli.usage import gateways_of, sums_of

    outputs, errors = sums_of(inventory, gateways_of(inventory, []), 0)
    return uses_of(outputs.values()), errors


def _print(report: KeyReport, clients: Clients, *, asked: bool) -> None:
    records = {(host, each.name): each for host, several in clients.items() for each in several}
    used = ("last used",) if asked else ()
    columns = ("host", "client", "scope", "sources", "limits", "state", *used, "digest")
    table = Table(*columns, box=None)
    for each in report.keys:
        record = records[each.host, each.client]
        last = (each.last_used[:10] if each.last_used else "–",) if asked else ()
        table.add_row(*map(escape, (each.host, *_row(record, each), *last, each.digest)))
    console = table_console()
    console.print(table)
    for sentence in dict.fromkeys(each.attention for each in report.keys if each.attention):
        console.print(f"[yellow]! {escape(sentence)}[/yellow]", soft_wrap=True)
    if asked and report.log_begins:
        console.print(f"the log begins {report.log_begins[:10]}")


def _records(data: object) -> list[ApiClient]:
    try:
        return TypeAdapter(list[ApiClient]).validate_python(data or [])
    except ValidationError:
        stop("api_clients has mistakes; run llmhost plan INVENTORY to see them")


def _row(client: ApiClient, status: KeyStatus) -> tuple[str, ...]:
    scope = client.scope if isinstance(client.scope, str) else ", ".join(client.scope)
    sources = ", ".join(map(str, client.sources)) if client.sources else "any"
    return (client.name, scope, sources, _limits(client), _state(client, status))


def _limits(client: ApiClient) -> str:
    limits = []
    if client.requests_per_minute:
        limits.append(f"{client.requests_per_minute}/min +{client.burst}")
    if client.concurrent_streams:
        limits.append(f"{client.concurrent_streams} streams")
    if client.tokens_per_day:
        limits.append(f"{client.tokens_per_day} tokens/day")
    return ", ".join(limits) or "none"


def _state(client: ApiClient, status: KeyStatus) -> str:
    if status.state != "valid":
        return status.state
    parts = [f"expires {client.expires:%Y-%m-%d %H:%M %Z}"] if client.expires else ["valid"]
    if client.previous_until and status.old_key_until:
        parts.append(f"old key until {client.previous_until:%Y-%m-%d %H:%M %Z}")
    return ", ".join(parts)
