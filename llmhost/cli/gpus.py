"""`llmhost gpus`: what each GPU did over time."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from llmhost.cli.arguments import Hosts, Inventory
from llmhost.cli.console import table_console
from llmhost.cli.errors import stop
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.parallel import run_on_each
from llmhost.cli.session import checked_hosts, connected, only_host
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import no_rules
from llmhost.status.gpu_history import (
    SCHEMA,
    GpuHistory,
    GpuHistoryReport,
    Span,
    Values,
    gpu_histories,
    highest,
    history_command,
    mean,
)
from llmhost.status.logs import seconds_of
from llmhost.units import MIB, gib

_SECONDS = 60
_BLOCKS = "▁▂▃▄▅▆▇█"
_COLUMNS = 32


def gpus(
    inventory: Inventory,
    hosts: Hosts = None,
    since: Annotated[str, typer.Option(help="From then until now, such as 90m, 6h or 7d")] = "6h",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs gpus.schema.json")
    ] = False,
) -> None:
    """Show what each GPU did over time: use, memory, temperature, power.

    It asks the Prometheus of the monitoring server: see llmhost docs monitoring.
    """
    try:
        seconds = seconds_of(since)
    except ValueError:
        stop(f"--since {since} is not an age; write one such as 90m, 6h or 7d")
    loaded = load_inventory(inventory)
    names = [host.name for host in checked_hosts(loaded, hosts or [], no_rules)]
    server = monitoring_server(checked_hosts(loaded, [], no_rules))
    if server is None:
        stop(
            "no host of this inventory keeps metrics; set monitoring_server = True on one, and"
            " monitoring_enabled = True on all that it is to watch"
        )
    own = server.settings.monitoring
    span = Span(int(time.time()), seconds, own.interval_seconds)
    printed = _ask(inventory, server.name, history_command(span, own.prometheus_port))
    report = GpuHistoryReport(
        schema=SCHEMA,
        monitoring_server=server.name,
        begin=span.begin,
        end=span.end,
        step_seconds=span.step,
        gpus=gpu_histories(span, printed, names),
    )
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    elif report.gpus:
        table_console().print(_table(report, since))
    else:
        typer.echo(f"{server.name} has no metrics of GPUs of {', '.join(names)} since {since} ago")


def monitoring_server(hosts: Sequence[SiteHost]) -> SiteHost | None:
    """The host that keeps the metrics of all."""
    return next((host for host in hosts if host.settings.monitoring.server), None)


def _ask(inventory: str, server: str, command: str) -> str:
    with connected(inventory, [server], strict=False) as (state, messages):
        host = only_host(state, messages, server)
        answer = run_on_each({host: command}, _SECONDS)[server]
    if answer.error:
        stop(f"{server}: {answer.error.splitlines()[-1]}")
    return answer.output


def _table(report: GpuHistoryReport, since: str) -> Table:
    title = f"GPUs in the last {since}, seen by {report.monitoring_server}"
    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    for column in ("host", "GPU", "use", "mean", "memory, most", "°C, most", "W, most"):
        table.add_column(column, overflow="fold")
    for gpu in report.gpus:
        table.add_row(*map(escape, _row(gpu)))
    return table


def _row(gpu: GpuHistory) -> tuple[str, ...]:
    memory = highest(gpu.memory_used_mib)
    return (
        gpu.host,
        f"{gpu.index} {gpu.name}",
        curve(gpu.utilization_percent),
        _percent(mean(gpu.utilization_percent)),
        gib(None if memory is None else memory * MIB),
        _number(highest(gpu.temperature_celsius)),
        _number(highest(gpu.power_watts)),
    )


def curve(percents: Values) -> str:
    """Percentages as a row of blocks; a space where nothing is known."""
    width = max(1, -(-len(percents) // _COLUMNS))
    parts = [mean(percents[at : at + width]) for at in range(0, len(percents), width)]
    return "".join(
        " " if part is None else _BLOCKS[min(7, int(part / 100 * len(_BLOCKS)))] for part in parts
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
