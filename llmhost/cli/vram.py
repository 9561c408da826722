"""`llmhost vram`: whether an inventory's models fit into its declared GPUs."""

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from llmhost.cli.arguments import Inventory, Limit
from llmhost.cli.console import table_console
from llmhost.cli.errors import stop
from llmhost.cli.session import site_hosts
from llmhost.inventory.model_rules import Shortfall
from llmhost.inventory.problem import Problem
from llmhost.inventory.rules import broken_rules
from llmhost.settings import Settings
from llmhost.units import exact_gib, in_gib
from llmhost.vram.ledger import Ledger, shortfalls
from llmhost.vram.plan import VramPlan, vram_plan
from llmhost.vram.remedies import remedies
from llmhost.vram.report import vram_report

DOES_NOT_FIT = 2

_BAR_CELLS = 60
_COLOURS = ("green", "cyan", "blue", "magenta", "yellow")


@dataclass(frozen=True)
class HostPlan:
    """One host's plan."""

    host: str
    plan: VramPlan


def vram(
    inventory: Inventory,
    limit: Limit = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs vram.schema.json")
    ] = False,
) -> None:
    """Show how much GPU memory each model needs and whether all models fit.

    Uses the GPUs in vram_gpus_gib; no host is contacted. Exit status: 0 all models fit, 2 they do
    not fit, 1 error.
    """
    hosts = site_hosts(inventory, limit or [], _rules_beside_memory)
    plans = [HostPlan(host.name, _plan(host.name, host.settings)) for host in hosts]
    if as_json:
        typer.echo(json.dumps(asdict(vram_report((each.host, each.plan) for each in plans))))
    else:
        _print(plans)
    raise typer.Exit(0 if all(each.plan.fits for each in plans) else DOES_NOT_FIT)


def _plan(host: str, settings: Settings) -> VramPlan:
    if settings.gpu_requests and not settings.vram.gpus_gib:
        what = "is empty; set it to the memory of each GPU, from nvidia-smi (MiB / 1024)"
        stop(f"{host}: vram_gpus_gib {what}")
    plan = vram_plan(settings, settings.vram.gpu_bytes)
    if plan.uncounted:
        stop(*(f"{host}: {sentence}" for sentence in plan.uncounted))
    return plan


def _rules_beside_memory(settings: Settings) -> Iterator[Problem]:
    """All rules except memory: this command reports a shortfall itself, not as an error."""
    return (each for each in broken_rules(settings) if not isinstance(each, Shortfall))


def _print(plans: list[HostPlan]) -> None:
    console = table_console()
    for each in plans:
        if not each.plan.ledgers:
            console.print(f"{escape(each.host)}: nothing runs on a GPU", highlight=False)
        for service in each.plan.on_host:
            what = "selects its GPU by UUID: its memory is checked by the deploy"
            console.print(f"{escape(each.host)}: '{service}' {what}", highlight=False)
        for ledger in each.plan.ledgers:
            console.print(_table(f"{each.host}, GPU {ledger.gpu}, in GiB", ledger))
            console.print(_bar(ledger))
            _print_verdict(console, ledger)


def _table(title: str, ledger: Ledger) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold", expand=False)
    table.add_column("model", overflow="fold")
    table.add_column("service", overflow="fold")
    for column in ("context", "weights", "cache", "work", "total"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("loaded")
    for load in ledger.loads:
        measured = load.measured_bytes is not None
        parts = (load.memory.weights_bytes, load.memory.cache_bytes, load.memory.work_bytes)
        cells = ["" if measured else in_gib(part) for part in parts]
        loaded = ("always" if load.resident else "on demand") + (", measured" if measured else "")
        context = f"{load.use.parallel} x {load.use.context_tokens}"
        total = in_gib(load.total_bytes)
        table.add_row(escape(load.model), escape(load.service), context, *cells, total, loaded)
    return table


def _bar(ledger: Ledger) -> Text:
    """60 cells for the GPU's memory, or for the peak if it is larger: full cells are in use, light
    ones free, hatched ones in reserve, dark ones in use beyond the limit."""
    cell = max(ledger.total_bytes, ledger.peak_bytes) / _BAR_CELLS
    ends = list(accumulate(size for _, size in ledger.at_peak()))
    bar = Text()
    for place in (cell * (number + 0.5) for number in range(_BAR_CELLS)):
        load, allowed = bisect_right(ends, place), place < ledger.limit_bytes
        if load < len(ends):
            colour = _COLOURS[load % len(_COLOURS)] if allowed else "red"
            bar.append("█" if allowed else "▓", style=colour)
        else:
            bar.append("░" if allowed else "▒", style="dim")
    return bar


def _print_verdict(console: Console, ledger: Ledger) -> None:
    names = ", ".join(f"{name} {exact_gib(size)}" for name, size in ledger.at_peak())
    console.print(f"at its peak: {escape(names) or 'nothing'}", highlight=False)
    if ledger.fits:
        free, reserve = exact_gib(ledger.free_bytes), exact_gib(ledger.reserve_bytes)
        left = f"{free} free, plus {reserve} in reserve"
        console.print(f"[green]fits[/green]: {left}", highlight=False)
    for sentence in shortfalls(ledger):
        console.print(f"[red]does not fit[/red]: {escape(sentence)}", highlight=False)
    for sentence in () if ledger.fits else remedies(ledger):
        console.print(f"  would fit: {escape(sentence)}", highlight=False)
    console.print()
