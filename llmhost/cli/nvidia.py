"""`llmhost nvidia`: what is known of drivers, CUDA and GPUs, and how old that is."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmhost.cli.console import table_console
from llmhost.nvidia.data import MATRIX
from llmhost.nvidia.matrix import (
    Row,
    age,
    branch_rows,
    cuda_rows,
    generation_rows,
    nvidia_report,
    offer_rows,
    rows,
)


def nvidia(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs nvidia.schema.json")
    ] = False,
) -> None:
    """Show which NVIDIA driver each release and GPU gets, and how old the figures are."""
    today = date.today()
    if as_json:
        typer.echo(json.dumps(asdict(nvidia_report(today)), default=str))
        return
    bulletin = MATRIX.bulletin
    console = table_console()
    console.print(Text(f"NVIDIA matrix, {age(today)}. Newer drivers, CUDA and GPUs get a warning."))
    drivers = (
        (row.release, row.gpus, row.source, _answer(row)) for row in rows(today) if row.default
    )
    named = f"Branches; floors of bulletin {bulletin.number}, {bulletin.published}"
    _print(console, "Drivers", ("release", "GPUs", "source", "branch"), drivers)
    _print(console, named, ("branch", "kind", "fixes until", "floor"), branch_rows(today))
    _print(console, "Offered", ("release", "its own packages", "NVIDIA's"), offer_rows())
    _print(console, "CUDA", ("CUDA", "own driver", "oldest branch"), cuda_rows())
    _print(console, "GPUs", ("generation", "first", "last", "module"), generation_rows())


def _answer(row: Row) -> str:
    return f"{row.choice.branch}, {row.choice.module}" if row.choice else row.refusal


def _print(
    console: Console, title: str, head: tuple[str, ...], lines: Iterable[tuple[str, ...]]
) -> None:
    table = Table(*head, title=title, title_justify="left", box=None, pad_edge=False)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    console.print()
    console.print(table)
