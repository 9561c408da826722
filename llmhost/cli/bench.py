"""`llmhost bench`: throughput and latency of a gateway at rising concurrency."""

import json
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.markup import escape
from rich.table import Table

from llmhost.bench.client import Load, measure
from llmhost.bench.plot import plot
from llmhost.bench.report import (
    BETTER_HIGH,
    SCHEMA,
    BenchReport,
    Goal,
    Level,
    changes,
    incomparable,
    level,
    parsed,
)
from llmhost.cli.arguments import Inventory
from llmhost.cli.console import table_console
from llmhost.cli.errors import ERROR, stop, writing
from llmhost.cli.plot_file import check_plot
from llmhost.cli.remote import ssh_address
from llmhost.cli.session import site_hosts
from llmhost.inventory.generating_roles import generating_roles
from llmhost.inventory.role import Role
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import no_rules
from llmhost.secret import read_token
from llmhost.version import toolkit

_COLUMNS = {
    "tokens_per_second": "tokens/s",
    "goodput_per_second": "goodput/s",
    "first_token_p50_seconds": "first token p50",
    "first_token_p95_seconds": "p95",
    "between_tokens_p50_seconds": "between p50",
    "between_tokens_p95_seconds": "p95",
}
_MARGIN = 0.05
"""Smaller changes are not colored: two runs on the same server differ by as much."""


def bench(
    inventory: Inventory,
    host: Annotated[str, typer.Argument(metavar="HOST", help="Host whose gateway to measure")],
    key: Annotated[
        str, typer.Option(help="API key of a client: env:NAME or file:PATH")
    ] = "env:LLMHOST_API_KEY",
    model: Annotated[str, typer.Option(help="Role to call; default: each that generates")] = "",
    concurrency: Annotated[str, typer.Option(help="Concurrent clients, level by level")] = "1,4,16",
    rounds: Annotated[int, typer.Option(min=1, help="Requests of each client per level")] = 5,
    words: Annotated[int, typer.Option(min=1, help="Words in a prompt")] = 200,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens in an answer")] = 128,
    first: Annotated[float, typer.Option(help="Goodput: most seconds to the first token")] = 2.0,
    between: Annotated[float, typer.Option(help="Goodput: most seconds between tokens")] = 0.1,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds without data before a request fails")
    ] = 300.0,
    url: Annotated[str, typer.Option(help="URL of the gateway; default: by its address")] = "",
    compare: Annotated[
        Path | None, typer.Option(help="An earlier output of --json to compare with")
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option("--plot", metavar="PNG", help="Also draw it; needs llmhost[plot]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs bench.schema.json")
    ] = False,
) -> None:
    """Measure throughput and latency of a gateway at rising concurrency.

    It sends streamed chat completions from this machine, with a client's key: limits and quotas of
    the client apply, and other users wait. Run it on an idle server. Exit status: 0, or 1 if a
    request failed.
    """
    if png:
        check_plot(png)
    before = _earlier(compare) if compare else None
    target, roles = gateway_host(inventory, host, model)
    report = _without_levels(target.name, words, tokens, Goal(first, between))
    if before and (why := incomparable(report, before)):
        stop(*(f"{compare}: cannot be compared: {each}" for each in why))
    loads = [Load(path, role, words, tokens) for role, path in roles.items()]
    with gateway_client(target, url, key, timeout) as client:
        levels = tuple(_levels(client, loads, _numbers(concurrency), rounds, report.goal))
    report = replace(report, levels=levels)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        table_console().print(_table(report, before))
    if png:
        with writing(png):
            plot(report, before, png)
    raise typer.Exit(_report_failures(levels))


def _without_levels(host: str, words: int, tokens: int, goal: Goal) -> BenchReport:
    """The report of a measurement that begins."""
    return BenchReport(
        schema=SCHEMA,
        host=host,
        time=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        version=str(toolkit()["version"]),
        prompt_words=words,
        max_tokens=tokens,
        goal=goal,
        levels=(),
    )


def _report_failures(levels: Sequence[Level]) -> int:
    """Print which requests failed; returns the exit status."""
    failed = [each for each in levels if each.failed]
    for each in failed:
        reasons = ", ".join(f"{count} × {why}" for why, count in each.errors.items())
        typer.echo(f"{each.model}, {each.concurrency} clients: failed: {reasons}", err=True)
    return ERROR if failed else 0


def _levels(
    client: httpx.Client, loads: list[Load], numbers: list[int], rounds: int, goal: Goal
) -> Iterator[Level]:
    sent = 0
    for load in loads:
        measure(client, load, 1, 1, sent)  # the model may have to be loaded
        sent += 1
        for concurrency in numbers:
            requests = concurrency * rounds
            seconds, samples = measure(client, load, concurrency, requests, sent)
            sent += requests
            yield level(load.model, concurrency, seconds, samples, goal)


def gateway_host(path: str, name: str, model: str) -> tuple[SiteHost, dict[str, str]]:
    """The host, and the chat routes of its roles."""
    site = {host.name: host for host in site_hosts(path, [], no_rules)}
    if name not in site or site[name].role is Role.APP_SERVER:
        known = ", ".join(each for each in site if site[each].role is not Role.APP_SERVER)
        stop(f"{name} is not a host with a gateway; the inventory has: {known}")
    roles = generating_roles(site[name], site)
    if model and model not in roles:
        stop(f"{model} is not a role that generates text; {name} has: {', '.join(roles) or 'none'}")
    if not roles:
        stop(f"{name} has no model that generates text")
    return site[name], {model: roles[model]} if model else roles


def gateway_client(host: SiteHost, url: str, key: str, timeout: float) -> httpx.Client:
    """A client of a host's gateway; stops if the key or the authority is missing."""
    gateway = host.settings.gateway
    try:
        secret = read_token(key)
        authority = gateway.ca_certificate
        context = ssl.create_default_context(cafile=str(authority) if authority else None)
    except ValueError as error:
        stop(f"--key {error}")
    except OSError as error:
        stop(f"{authority}: {error.strerror}; the first deploy creates the certificate authority")
    return httpx.Client(
        base_url=url or gateway.url(str(host.address or ssh_address(host.name, host.data))),
        headers={"Authorization": f"Bearer {secret}"},
        verify=context,
        timeout=httpx.Timeout(timeout, connect=10),
        limits=httpx.Limits(max_connections=None),
        trust_env=False,
    )


def _numbers(text: str) -> list[int]:
    try:
        found = [int(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > 1024:
        stop(f"--concurrency {text} is not a list of numbers from 1 to 1024; write one such as 1,4")
    return found


def _earlier(file: Path) -> BenchReport:
    try:
        return parsed(file.read_text())
    except OSError as error:
        stop(f"{file}: {error.strerror}")
    except ValueError as error:
        stop(f"{file} {error}")


def _table(report: BenchReport, before: BenchReport | None) -> Table:
    title = f"{report.host}: {report.prompt_words} words in, up to {report.max_tokens} tokens out"
    if before:
        title += f"; changes since {before.time}"
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("model", overflow="fold")
    for column in ("clients", "requests", "failed", *_COLUMNS.values()):
        table.add_column(column, justify="right", no_wrap=True)
    for each in report.levels:
        change = changes(each, before) if before else {}
        counts = map(str, (each.concurrency, each.requests, each.failed))
        cells = (_cell(name, getattr(each, name), change.get(name)) for name in _COLUMNS)
        table.add_row(escape(each.model), *counts, *cells)
    return table


def _cell(name: str, value: float | None, change: float | None) -> str:
    if value is None:
        return "–"
    shown = f"{1000 * value:.0f} ms" if name.endswith("_seconds") else f"{value:.1f}"
    if change is None:
        return shown
    better = change > 0 if name in BETTER_HIGH else change < 0
    color = "default" if abs(change) < _MARGIN else "green" if better else "red"
    return f"{shown} [{color}]{change:+.0%}[/{color}]"
