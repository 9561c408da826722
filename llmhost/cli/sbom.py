"""`llmhost sbom`: what runs on each host, as signed CycloneDX documents."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from llmhost.bundle.key import (
    DIRECTORY,
    PUBLIC,
    fingerprint,
    is_signed,
    signing_key,
    verifying_key,
)
from llmhost.bundle.manifest import BundleError
from llmhost.cli.arguments import Hosts, Inventory
from llmhost.cli.console import table_console
from llmhost.cli.errors import DRIFT, ERROR, check_directory, stop
from llmhost.sbom.changes import SbomChanges, compare, read
from llmhost.sbom.licences import LicenceUse, as_csv, components_of, licence_table
from llmhost.system.whole_file import write_file

_ANSWER_SECONDS = 600
_SUFFIX, _SIGNATURE = ".cdx.json", ".sig"
_LICENCES = "licences.csv"


class _OrInventory(TyperGroup):
    """Without a subcommand, the first word is an inventory."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["create", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_OrInventory,
    help="Write what runs on each host as signed CycloneDX documents; compare two of them."
    "\n\nllmhost sbom INVENTORY is llmhost sbom create INVENTORY.",
    no_args_is_help=True,
)

Key = Annotated[Path, typer.Option(help="Directory of the key; that of bundles is the default")]
Document = Annotated[Path, typer.Argument(help="A document, such as sbom/llm-server.cdx.json")]


@app.command()
def create(
    inventory: Inventory,
    hosts: Hosts = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write to")] = Path(
        "sbom"
    ),
    key: Key = DIRECTORY,
) -> None:
    """Write a document for each host: packages, containers with theirs, and models.

    HOST.cdx.json is CycloneDX 1.6, HOST.cdx.json.sig its Ed25519 signature, licences.csv lists the
    license of each component. Nothing on the hosts changes. Exit status: 0, or 1 if a host, or the
    packages of one of its containers, could not be read.
    """
    check_directory(output)
    documents, errors = _documents(inventory, hosts or [])
    if documents:
        with _sentences():
            signing = signing_key(key.expanduser())
            _write(output, documents, signing.sign)
        _print(output, {host: json.loads(text) for host, text in documents.items()})
        public = key.expanduser() / PUBLIC
        print_key = f"signed with the key {fingerprint(signing.public_key())}, {public}"
        typer.echo(print_key, err=True)
    for place, error in errors.items():
        typer.echo(f"{place}: {error}", err=True)
    raise typer.Exit(ERROR if errors else 0)


@app.command()
def diff(
    before: Document,
    after: Document,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs sbom-diff.schema.json")
    ] = False,
) -> None:
    """Show what changed between two documents, such as those of two deploys.

    Exit status: 0 nothing, 2 something, 1 a file is not such a document.
    """
    found = compare(_read(before), _read(after))
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        table_console().print(_changes(found) if found.changes else "nothing changed")
    raise typer.Exit(DRIFT if found.changes else 0)


@app.command()
def verify(
    file: Document,
    key: Annotated[Path, typer.Option(help="Public key of the machine that wrote it")] = (
        DIRECTORY / PUBLIC
    ),
) -> None:
    """Check the signature of a document. Exit status: 0, or 1 if it is not valid."""
    with _sentences():
        public = verifying_key(key.expanduser())
        signature = file.with_name(file.name + _SIGNATURE).read_bytes()
        if not is_signed(file.read_bytes(), signature, public):
            raise BundleError(f"{file} was altered, or signed with another key than {key}")
    typer.echo(f"{file} is signed with the key {fingerprint(public)}")


def _documents(path: str, limit: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The documents by host, and what could not be read."""
    # pyinfra and the library take half a second to import, and the other commands need neither.
    from llmhost.cli.inventory_file import load_inventory
    from llmhost.cli.parallel import run_on_each
    from llmhost.cli.session import connected, hosts_within
    from llmhost.operations.inventory import site_of
    from llmhost.sbom.document import unread
    from llmhost.sbom.host import host_document, read_command

    names = [host.name for host in hosts_within(load_inventory(path), limit)]
    with connected(path, names, strict=False) as (state, messages):
        site = site_of(state)
        commands = {host: read_command(site[host.name]) for host in state.active_hosts}
        answers = run_on_each(commands, _ANSWER_SECONDS, json.loads)
    documents: dict[str, str] = {}
    errors: dict[str, str] = {}
    for name in sorted(names):
        answer = answers.get(name)
        if answer is None or answer.error:
            errors[name] = answer.error if answer else messages.about(name)[-1]
            continue
        found = json.loads(answer.output)
        documents[name] = host_document(site[name], found)
        errors |= {f"{name}: {place}": why for place, why in unread(found).items()}
    return documents, errors


def _write(directory: Path, documents: dict[str, str], sign: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for host, text in documents.items():
        data, file = text.encode(), _file(directory, host)
        write_file(file, data)
        write_file(file.with_name(file.name + _SIGNATURE), sign(data))
    parsed = {host: json.loads(text) for host, text in documents.items()}
    write_file(directory / _LICENCES, as_csv(parsed))


def _file(directory: Path, host: str) -> Path:
    """The document of a host; names such as `@ssh/10.0.0.1` have a slash."""
    return directory / f"{host.replace('/', '-')}{_SUFFIX}"


def _print(directory: Path, documents: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for host, document in documents.items():
        count = sum(1 for _ in components_of(document))
        console.print(escape(f"{host}: {count} components in {_file(directory, host)}"))
    table_console().print(_licence_table(licence_table(documents.values())))


def _licence_table(rows: Sequence[LicenceUse]) -> Table:
    table = Table(box=None, expand=True)
    table.add_column("license", overflow="ellipsis", no_wrap=True, ratio=2)
    table.add_column("components", justify="right", min_width=10)
    table.add_column("such as", overflow="ellipsis", no_wrap=True, ratio=3)
    for row in rows:
        some = ", ".join(row.components[:3])
        table.add_row(escape(row.licence), str(len(row.components)), escape(some))
    return table


def _changes(found: SbomChanges) -> Table:
    title = f"{found.before} → {found.after}"
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None)
    for column in ("place", "kind", "name", "change", "before", "after"):
        table.add_column(column, overflow="fold")
    for each in found.changes:
        values = (", ".join(each.before), ", ".join(each.after))
        table.add_row(*map(escape, (each.place, each.kind, each.name, each.change, *values)))
    return table


def _read(file: Path) -> dict[str, Any]:
    try:
        return read(file.read_text(encoding="utf-8"))
    except OSError as error:
        stop(f"{file}: {error.strerror}")
    except ValueError as error:
        stop(f"{file} {error}")


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except BundleError as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}")
