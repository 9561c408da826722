"""`llmhost plan`: show what a deploy would change on each host."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from pyinfra.api import Host, State
from rich.markup import escape
from rich.table import Table

from llmhost.cli.arguments import Inventory, Limit
from llmhost.cli.console import table_console
from llmhost.cli.errors import DRIFT, ERROR
from llmhost.cli.messages import Messages
from llmhost.cli.session import dry_run
from llmhost.operations.changes import reasons
from llmhost.operations.run_state import Reasons, title
from llmhost.status.plan import ERRORS, SCHEMA, HostPlan, PlanReport, Step
from llmhost.units import counted


def plan(
    inventory: Inventory,
    limit: Limit = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs plan")
    ] = False,
) -> None:
    """Show what a deploy would change, and why. Changes nothing.

    Exit status: 0 nothing to do, 2 drift, 1 error.
    """
    with dry_run(inventory, limit or []) as (state, messages):
        plans = [host_plan(state, host, messages) for host in _limited(state)]
    if as_json:
        typer.echo(json.dumps(asdict(PlanReport(SCHEMA, tuple(plans)))))
    else:
        _print(plans)
    raise typer.Exit(exit_status(plans))


def exit_status(plans: Sequence[HostPlan]) -> int:
    """The worst of all hosts: an error weighs more than drift."""
    statuses = {each.status for each in plans}
    if statuses & ERRORS:
        return ERROR
    return DRIFT if "drift" in statuses else 0


def _limited(state: State) -> list[Host]:
    return sorted(filter(state.is_host_in_limit, state.inventory), key=lambda host: host.name)


def host_plan(state: State, host: Host, messages: Messages) -> HostPlan:
    if host not in state.active_hosts:
        unread = host in state.activated_hosts
        errors = messages.about(host.name, "its state could not be read" if unread else "")
        return HostPlan(host.name, "failed" if unread else "unreachable", errors=tuple(errors))
    notes = tuple(
        sentence for operation in host.op_hash_order for sentence in reasons(host, operation).notes
    )
    pending = [
        (operation, reasons(host, operation))
        for operation in host.op_hash_order
        if state.ops[host][operation].operation_meta.will_change
    ]
    refusals = tuple(sentence for _, why in pending for sentence in why.refusals)
    steps = tuple(_step(state, operation, why) for operation, why in pending if not why.refusals)
    if refusals:
        return HostPlan(host.name, "refused", steps, refusals, notes)
    return HostPlan(host.name, "drift" if steps else "converged", steps, notes=notes)


def _step(state: State, operation: str, reasons: Reasons) -> Step:
    component, _, name = title(state, operation).partition(" | ")
    return Step(component, name or component, tuple(reasons.changes))


def _print(plans: Sequence[HostPlan]) -> None:
    console = table_console()
    for each in plans:
        for error in each.errors:
            console.print(f"[bold]{escape(each.host)}[/bold]: [red]{escape(error)}[/red]")
        for sentence in each.notes:
            console.print(f"[bold]{escape(each.host)}[/bold]: [yellow]{escape(sentence)}[/yellow]")
        if each.steps:
            console.print(_table(each))
        elif each.status == "converged":
            console.print(f"[bold]{escape(each.host)}[/bold]: [green]nothing to do[/green]")
    drifted = sum(each.status == "drift" for each in plans)
    failed = sum(each.status in ERRORS for each in plans)
    console.print(
        f"{counted(len(plans), 'host')}: {drifted} to change, {failed} failed", highlight=False
    )


def _table(host_plan: HostPlan) -> Table:
    table = Table(title=host_plan.host, title_justify="left", title_style="bold", expand=False)
    for column in ("component", "operation", "why"):
        table.add_column(column, overflow="fold")
    for step in host_plan.steps:
        why = escape("\n".join(step.reasons))
        table.add_row(escape(step.component), escape(step.operation), why)
    return table
