"""`llmhost doctor`: what the controller and the site lack, one line each, with the fix."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llmhost.cli.doctor_controller import controller_findings
from llmhost.cli.errors import DRIFT
from llmhost.status.findings import SCHEMA, DoctorReport, Finding

_SITE = "inventory/site.py"
_MARKS = {"ok": "[green]ok[/green]     ", "advice": "[yellow]advice[/yellow] "}
_MISSING = "[red]missing[/red]"


def doctor(
    inventory: Annotated[
        str | None,
        typer.Argument(help=f"Inventory file; default: {_SITE}, if it exists", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs doctor.schema.json")
    ] = False,
) -> None:
    """Show what this machine, the site and the way to its hosts lack, and how to fix it.

    Changes nothing. Exit status: 0 nothing is missing, 2 something is missing.
    """
    found = controller_findings()
    path = inventory or (_SITE if Path(_SITE).is_file() else None)
    if path is None:
        found.append(
            Finding(
                "site.inventory",
                "advice",
                f"no {_SITE} in this directory; to create a site",
                "llmhost init my-site",
            )
        )
    else:
        # It reads the inventory with pyinfra; the controller's findings need neither.
        from llmhost.cli.doctor_site import site_findings

        found += site_findings(path)
    if as_json:
        typer.echo(json.dumps(asdict(DoctorReport(SCHEMA, tuple(found)))))
    else:
        _print(found)
    raise typer.Exit(DRIFT if any(each.state == "missing" for each in found) else 0)


def _print(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)
    for each in found:
        fix = f": [bold]{escape(each.fix)}[/bold]" if each.fix else ""
        console.print(f"{_MARKS.get(each.state, _MISSING)} {escape(each.what)}{fix}")
