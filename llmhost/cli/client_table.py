"""The table of `llmhost key list`."""

from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from llmhost.cli.errors import stop
from llmhost.cli.inventory_file import inventory_data
from llmhost.options.gateway import ApiClient


def print_clients(inventory: str) -> None:
    """Print each host's clients. Stops if `api_clients` is invalid."""
    columns = ("host", "client", "scope", "sources", "limits", "state", "digest")
    table = Table(*columns, box=None)
    now = datetime.now(UTC)
    for host, data in inventory_data(inventory).items():
        for record in _records(data.get("api_clients")):
            table.add_row(host, *_row(record, now))
    Console().print(table)


def _records(data: object) -> list[ApiClient]:
    try:
        return TypeAdapter(list[ApiClient]).validate_python(data or [])
    except ValidationError:
        stop("api_clients has mistakes; run llmhost plan INVENTORY to see them")


def _row(client: ApiClient, now: datetime) -> tuple[str, ...]:
    scope = client.scope if isinstance(client.scope, str) else ", ".join(client.scope)
    sources = ", ".join(map(str, client.sources)) if client.sources else "any"
    return (client.name, scope, sources, _limits(client), _state(client, now), client.sha256[:8])


def _limits(client: ApiClient) -> str:
    limits = []
    if client.requests_per_minute:
        limits.append(f"{client.requests_per_minute}/min +{client.burst}")
    if client.concurrent_streams:
        limits.append(f"{client.concurrent_streams} streams")
    if client.tokens_per_day:
        limits.append(f"{client.tokens_per_day} tokens/day")
    return ", ".join(limits) or "none"


def _state(client: ApiClient, now: datetime) -> str:
    if client.revoked:
        return "revoked"
    if client.expires and client.expires <= now:
        return "expired"
    parts = [f"expires {client.expires:%Y-%m-%d %H:%M %Z}"] if client.expires else ["valid"]
    if client.previous_until and client.previous_until > now:
        parts.append(f"old key until {client.previous_until:%Y-%m-%d %H:%M %Z}")
    return ", ".join(parts)
