"""`llmhost latency`: measure how fast the gateway answers the application servers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from pyinfra.api import Host
from pyinfra.context import ctx_host
from rich.markup import escape
from rich.table import Table

from llmhost.cli.arguments import Inventory, Limit
from llmhost.cli.console import table_console
from llmhost.cli.errors import ERROR, stop
from llmhost.cli.messages import Messages
from llmhost.cli.session import connected
from llmhost.facts.latency import Latency
from llmhost.inventory.generating_roles import generating_roles
from llmhost.inventory.role import APP_SERVERS, Role
from llmhost.inventory.site import LlmEndpoint, Site, SiteHost, llm_endpoint
from llmhost.operations.inventory import site_of
from llmhost.verify.latency import MEASURES, SCHEMA, LatencyReport, Report, report


def latency(
    inventory: Inventory,
    limit: Limit = None,
    requests: Annotated[
        int, typer.Option(min=1, max=10_000, help="Number of requests to measure")
    ] = 20,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens in an answer")] = 64,
    model: Annotated[str, typer.Option(help="Role to call; default: each that generates")] = "",
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds without data before a request fails")
    ] = 120.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs latency.schema.json")
    ] = False,
) -> None:
    """Measure how fast the gateway answers each application server, for each role.

    Exit status: 0, or 1 if the measurement failed on a host.
    """
    with connected(inventory, limit or [APP_SERVERS]) as (state, messages):
        site = site_of(state)
        hosts = sorted(filter(state.is_host_in_limit, state.inventory), key=lambda each: each.name)
        asked = {"requests": requests, "tokens": tokens, "timeout_seconds": timeout}
        reports = [
            report
            for host in hosts
            for report in _reports(
                host, site, _roles(site[host.name], site, model), asked, messages
            )
        ]
    if as_json:
        typer.echo(json.dumps(asdict(LatencyReport(SCHEMA, tuple(reports)))))
    else:
        _print(reports)
    raise typer.Exit(ERROR if any(each.error for each in reports) else 0)


def _roles(app: SiteHost, site: Site, wanted: str) -> dict[str, str]:
    """Chat routes by role. Without a declared one: the first model that the gateway lists."""
    endpoint = llm_endpoint(app, site)
    declared = generating_roles(endpoint.host, site) if isinstance(endpoint, LlmEndpoint) else {}
    if wanted:
        return {wanted: declared.get(wanted, "")}
    return declared or {"": ""}


def _reports(
    host: Host,
    site: Site,
    roles: Mapping[str, str],
    asked: Mapping[str, object],
    messages: Messages,
) -> Iterator[Report]:
    if site[host.name].role is not Role.APP_SERVER:
        stop(f"{host.name} is not in the group {APP_SERVERS}: add --limit {APP_SERVERS}")
    if host not in host.state.active_hosts:
        yield Report(host.name, error=" ".join(messages.about(host.name)))
        return
    place = site[host.name].settings.app_server.environment_file
    for role, path in roles.items():
        with ctx_host.use(host):
            lines: list[str] = host.get_fact(
                Latency, path=place, model=role, chat_path=path, **asked
            )
        yield report(host.name, role, lines)


def _print(reports: Sequence[Report]) -> None:
    console = table_console()
    for each in reports:
        if each.error:
            about = ", ".join(filter(None, (each.host, each.model)))
            console.print(f"[bold]{escape(about)}[/bold]: [red]{escape(each.error)}[/red]")
        else:
            console.print(_table(each))


def _table(each: Report) -> Table:
    title = f"{each.host}, {each.model}: {each.requests} answers, {each.tokens} tokens"
    table = Table(title=escape(title), title_justify="left", title_style="bold", expand=False)
    table.add_column("")
    for column in ("p50", "p95"):
        table.add_column(column, justify="right", no_wrap=True)
    for measure, values in (each.measures or {}).items():
        table.add_row(MEASURES[measure], *(_shown(measure, values[p]) for p in ("p50", "p95")))
    return table


def _shown(measure: str, value: float) -> str:
    return f"{1000 * value:.1f} ms" if measure.endswith("_seconds") else f"{value:.1f}"
