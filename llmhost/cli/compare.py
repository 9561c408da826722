"""`llmhost compare`: the same questions to two models. `llmhost promote`: exchange their names."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmhost.bench.side_by_side import QUESTIONS, SCHEMA, Answer, Asked, CompareReport, ask, page
from llmhost.cli.arguments import Inventory
from llmhost.cli.bench import gateway_client
from llmhost.cli.edit import edit_file
from llmhost.cli.errors import ERROR, check_inventory_file, check_writable, stop, writing
from llmhost.cli.session import site_hosts
from llmhost.inventory.generating_roles import generating_roles
from llmhost.inventory.model_names import exchanged
from llmhost.inventory.role import Role
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import no_rules
from llmhost.system.whole_file import write_file

_CUT = "cut at --tokens"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that a terminal obeys, but for tabs and ends of lines."""


def compare(
    inventory: Inventory,
    first: Annotated[str, typer.Argument(metavar="MODEL_A", help="Role of a model")],
    second: Annotated[str, typer.Argument(metavar="MODEL_B", help="Role of the other one")],
    questions: Annotated[
        Path | None, typer.Option(help="File with a question in each line; none: five general ones")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Host whose gateway to ask; default: the one with both models")
    ] = "",
    key: Annotated[
        str, typer.Option(help="API key of a client: env:NAME or file:PATH")
    ] = "env:LLMHOST_API_KEY",
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens in an answer")] = 256,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds without data before a request fails")
    ] = 300.0,
    url: Annotated[str, typer.Option(help="URL of the gateway; default: by its address")] = "",
    html: Annotated[Path | None, typer.Option(help="Also write it as an HTML file")] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Choose the better answer without the models' names")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs compare.schema.json")
    ] = False,
) -> None:
    """Ask two models the same questions, and show their answers side by side.

    Each question goes through the gateway to one model after the other, with the options of its
    role. Exit status: 0, or 1 if a request failed.
    """
    if first == second:
        stop(f"MODEL_A and MODEL_B are both {first}; write the names of two models")
    if html:
        check_writable(html)
    texts = _questions(questions)
    target, paths = _target(inventory, host, (first, second))
    asked: list[Asked] = []
    with gateway_client(target, url, key, timeout) as client:
        for text in texts:
            one, two = (ask(client, paths[m], m, text, tokens) for m in (first, second))
            found = Asked(text, one, two)
            if not blind:
                _say_errors(found, first, second)
            asked.append(_judged(found, first, second) if blind else found)
    for found in asked if blind else ():
        _say_errors(found, first, second)  # not before the last choice: they have names
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    report = CompareReport(SCHEMA, target.name, now, first, second, tuple(asked))
    if html:
        with writing(html):
            write_file(html, page(report))
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    elif blind:
        _print_choice(report, inventory)
    else:
        Console(highlight=False).print(_table(report))
    raise typer.Exit(ERROR if any(each.failed for each in asked) else 0)


def promote(
    inventory: Inventory,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The better model")],
    role: Annotated[str, typer.Argument(metavar="ROLE", help="Name that it gets")],
) -> None:
    """Exchange the names of a model and of a role's model in the inventory.

    Only the file changes; the next deploy makes it so. The same command again undoes it.
    """
    check_inventory_file(inventory)
    edit_file(Path(inventory), lambda source: exchanged(source, model, role))
    typer.echo(f"{role} is now what {model} was, and the other way round; see llmhost plan")


def _questions(file: Path | None) -> Sequence[str]:
    if file is None:
        return QUESTIONS
    try:
        # Not splitlines: a question may have other characters that end a line, such as U+2028.
        found = [line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n")]
    except OSError as error:
        stop(f"--questions {file}: {error.strerror}")
    except UnicodeDecodeError:
        stop(f"--questions {file} is not UTF-8; save it as UTF-8")
    if not any(found):
        stop(f"--questions {file} is empty; write a question in each line")
    return [each for each in found if each]


def _target(path: str, name: str, models: tuple[str, str]) -> tuple[SiteHost, dict[str, str]]:
    """The host whose gateway has both models, and their chat routes."""
    site = {each.name: each for each in site_hosts(path, [], no_rules)}
    gateways = {n: each for n, each in site.items() if each.role is not Role.APP_SERVER}
    if name and name not in gateways:
        stop(f"--host {name} is not a host with a gateway; the inventory has: {_listed(gateways)}")
    roles = {n: generating_roles(each, site) for n, each in gateways.items() if name in ("", n)}
    found = [n for n, known in roles.items() if {*models} <= {*known}]
    if len(found) > 1:
        stop(f"several hosts have both models; choose one with --host: {_listed(found)}")
    if not found:
        known = dict.fromkeys(role for each in roles.values() for role in each)
        missing = next((m for m in models if m not in known), "")
        if missing:
            stop(f"{missing} is not a role that generates text; there are: {_listed(known)}")
        stop(f"no gateway has both models, {models[0]} and {models[1]}; they are on several hosts")
    return site[found[0]], roles[found[0]]


def _listed(names: Sequence[str] | dict[str, object] | dict[str, SiteHost]) -> str:
    return ", ".join(names) or "none"


def _say_errors(asked: Asked, first: str, second: str) -> None:
    for model, answer in ((first, asked.first), (second, asked.second)):
        if answer.error:
            typer.echo(f"{model}: {_shown(answer.error)}", err=True)


def _shown(text: str) -> str:
    """What a model wrote, for a terminal, which it must not control."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def _judged(asked: Asked, first: str, second: str) -> Asked:
    """Show both answers in random order, and ask which one is better. If one is missing, the
    question counts for none: which model failed would show its name."""
    typer.echo(f"\n{_shown(asked.question)}", err=True)
    if asked.failed:
        typer.echo("\nA request failed; this question is not counted.", err=True)
        return asked
    pairs = [(first, asked.first), (second, asked.second)]
    random.shuffle(pairs)
    for number, (_, answer) in enumerate(pairs, 1):
        cut = f"\n({_CUT})" if answer.is_cut else ""
        typer.echo(f"\n--- {number} ---\n{_shown(answer.text.strip())}{cut}", err=True)
    said = ""
    while said not in ("1", "2", "="):
        said = typer.prompt("\nBetter: 1, 2 or =", err=True).strip()
    return replace(asked, better="" if said == "=" else pairs[int(said) - 1][0])


def _print_choice(report: CompareReport, inventory: str) -> None:
    counts = {name: report.chosen(name) for name in (report.first, report.second)}
    failed = sum(each.failed for each in report.questions)
    equal = len(report.questions) - failed - sum(counts.values())
    listed = [*counts.items(), ("equal", equal), *([("failed", failed)] if failed else [])]
    typer.echo(", ".join(f"{name}: {number}" for name, number in listed))
    if counts[report.second] > counts[report.first]:
        typer.echo(
            f"To use it: llmhost promote {inventory} {report.second} {report.first}", err=True
        )


def _table(report: CompareReport) -> Table:
    table = Table(show_lines=True)
    table.add_column("question", ratio=1, overflow="fold")
    for name in (report.first, report.second):
        table.add_column(escape(name), ratio=2, overflow="fold")
    for each in report.questions:
        table.add_row(escape(_shown(each.question)), _cell(each.first), _cell(each.second))
    return table


def _cell(found: Answer) -> str:
    if found.error:
        return f"[red]{escape(_shown(found.error))}[/red]"
    figures = f"{found.seconds:.1f} s, first token after {found.first_seconds:.2f} s"
    figures += f", {found.tokens} tokens" + (f", {_CUT}" if found.is_cut else "")
    return f"{escape(_shown(found.text.strip()))}\n\n[dim]{figures}[/dim]"
