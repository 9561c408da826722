"""`llmhost model`: list an inventory's models and pin their sources."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from llmhost.cli.console import table_console
from llmhost.cli.errors import stop, writing
from llmhost.cli.hub import ADDRESSES, HubError, Hubs
from llmhost.cli.inventory_file import inventory_data
from llmhost.inventory.mistakes import listed
from llmhost.inventory.profiles import with_profile
from llmhost.models.lock import LockError, is_pinned, lock_key, read_lock, with_pins, write_lock
from llmhost.models.made import as_made, derive_of, made_directory, made_key
from llmhost.models.trained import base_record
from llmhost.options.model_source import HubSource, OllamaSource, parse_source
from llmhost.options.policy import ModelPolicy
from llmhost.options.stack import Stack
from llmhost.services import catalogue
from llmhost.system.whole_file import write_file
from llmhost.units import counted, in_gib

app = typer.Typer(
    help="List models, pin their sources, store their weights, and make models.",
    no_args_is_help=True,
)

InventoryFile = Annotated[
    str, typer.Argument(metavar="INVENTORY", help="Inventory file, such as inventory/site.py")
]
Records = list[dict[str, Any]]
Entries = dict[str, dict[str, Any]]

_LOCK = Path(Stack().models_lock)
_POLICY = tuple(ModelPolicy.model_fields)


@app.command()
def add(
    role: Annotated[str, typer.Argument(metavar="NAME", help="Name that clients request")],
    source: Annotated[
        str, typer.Argument(help="hf:PUBLISHER/REPOSITORY[/FILE] or ollama:NAME:TAG")
    ],
    service: Annotated[str, typer.Option(help="Service that runs it")] = "llamacpp",
    include: Annotated[
        list[str] | None, typer.Option(help="Files to lock, such as '*.json'; repeatable")
    ] = None,
    lock_file: Annotated[Path, typer.Option("--lock", help="Lock file to add it to")] = _LOCK,
) -> None:
    """Pin a model's source in the lock file and print the record for the inventory."""
    if service not in catalogue():
        stop(f"--service '{service}' is not a service; write {listed(catalogue())}")
    record: dict[str, Any] = {"name": role, "service": service, "source": source}
    record |= {"include": include} if include else {}
    write_entries(lock_file, read_entries(lock_file) | resolve(record))
    typer.echo(f"Pinned in {lock_file}. Add this record to models in the inventory:", err=True)
    typer.echo(json.dumps(record) + ",")


@app.command()
def lock(
    inventory: InventoryFile,
    update: Annotated[bool, typer.Option("--update", help="Also renew existing pins")] = False,
) -> None:
    """Write the commit and hashes of every model that the inventory does not pin to the lock file.

    Existing entries stay as they are, unless --update is given. Entries that the inventory no
    longer needs are removed.
    """
    for file, locked in by_lock_file(inventory).items():
        _warn_of_variables(locked)
        check_revisions(locked)
        known = {} if update else read_entries(file)
        entries: Entries = {}
        for record in locked.records:
            if is_pinned(record):
                continue
            key, pinned = lock_key(record), is_pinned(with_pins(record, known))
            entries |= {key: known[key]} if pinned else resolve(record, locked.addresses)
        # Looking up takes minutes: what was made meanwhile stays.
        written = read_entries(file)
        for record in locked.records:
            derive = derive_of(record)
            if derive and (key := made_key(record, derive)) in written:
                entries[key] = written[key]
        write_entries(file, entries)
        sources = sum("input" not in entry for entry in entries.values())
        typer.echo(f"{file}: {counted(sources, 'source')} locked")


@app.command("list")
def list_models(inventory: InventoryFile) -> None:
    """Show each model, the service that runs it, and its pins."""
    table = Table(box=None)
    for column in ("name", "service", "source", "revision", "pinned by", "GiB"):
        table.add_column(column, overflow="fold")
    for file, locked in by_lock_file(inventory).items():
        entries, made = read_entries(file), made_directory(file)
        for record in locked.records:
            table.add_row(*map(escape, _row(record, entries, made)))
    table_console().print(table)


def _row(record: Mapping[str, Any], entries: Entries, made: Path) -> Iterator[str]:
    source = str(record.get("source"))
    yield str(record.get("name"))
    yield str(record.get("service", "llamacpp"))
    yield source
    pinned, derive = with_pins(record, entries), derive_of(record)
    yield str(pinned.get("revision") or "")[:12]
    if derive:
        pinned = as_made(pinned, entries, made)
    if derive and "made_from" not in pinned:
        yield "nothing; run llmhost model make"
    elif not is_pinned(pinned):
        yield "nothing; run llmhost model lock"
    else:
        files = pinned.get("files")
        yield f"{len(files)} files" if files else str(pinned["sha256"])[:12]
    key = made_key(record, derive) if derive else lock_key(record)
    size = entries.get(key, {}).get("bytes")
    yield in_gib(size) if size else ""


@dataclass
class Locked:
    """What a lock file is for: records of all hosts' models, without duplicates, the addresses
    of the hubs in the inventory, by option, and the policies of the hosts."""

    records: Records = field(default_factory=list)
    policies: list[dict[str, Any]] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)


def by_lock_file(inventory: str) -> dict[Path, Locked]:
    found: dict[Path, Locked] = {}
    for host in inventory_data(inventory).values():
        data = with_profile(host)
        file = Path(str(data.get("stack_models_lock") or Stack().models_lock)).expanduser()
        models = data.get("models", ())
        records = [dict(each) for each in models if isinstance(each, Mapping)]
        records += _bases(data.get("training_jobs", ()), records)
        known = found.setdefault(file, Locked())
        known.records += [record for record in records if record not in known.records]
        known.addresses |= {name: str(data[name]) for name in ADDRESSES if name in data}
        policy = {key: data[f"policy_{key}"] for key in _POLICY if f"policy_{key}" in data}
        known.policies += [policy] if policy not in known.policies else []
    return found


def _bases(jobs: Any, models: Records) -> Records:
    """The bases of training jobs, except those that are the source of a model too."""
    known = {lock_key(each) for each in models}
    listed = jobs if isinstance(jobs, list | tuple) else ()
    found = [base_record(job, models) for job in listed if isinstance(job, Mapping)]
    return [each for each in found if each and lock_key(each) not in known]


def check_revisions(locked: Locked) -> None:
    """Stop if records need different pins of one source: the lock file has one for each source, and
    a further record would change the weights of another."""
    first: dict[str, tuple[object, str]] = {}
    for record in locked.records:
        if not is_pinned(record):
            ours = record.get("revision"), str(record.get("name"))
            other = first.setdefault(lock_key(record), ours)
            if other[0] != ours[0]:
                stop(
                    f"{other[1]} and {ours[1]} have the source {record.get('source')} at different"
                    " revisions, and the lock file pins each source once: write the revision and"
                    " sha256 (or files) of one of them in the inventory, or another"
                    " stack_models_lock"
                )


def _warn_of_variables(locked: Locked) -> None:
    for option, (variable, _) in ADDRESSES.items():
        if variable in os.environ and option not in locked.addresses:
            typer.echo(
                f"{variable} is for locking only: set {option} in the inventory, so that servers"
                " download from there too",
                err=True,
            )


def read_entries(file: Path) -> Entries:
    try:
        return read_lock(file.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        stop(f"{file}: the lock file cannot be read: {error.strerror}")
    except (LockError, UnicodeDecodeError) as error:
        why = error if isinstance(error, LockError) else "is not a text file"
        stop(f"{file}: the lock file {why}; remove it, then run llmhost model lock INVENTORY")


def write_entries(file: Path, entries: Entries) -> None:
    with writing(file):
        write_file(file, write_lock(entries))


def resolve(record: Mapping[str, Any], addresses: Mapping[str, str] | None = None) -> Entries:
    """The lock file's entry for a source; stops with a sentence if it cannot be resolved."""
    source = str(record.get("source"))
    try:
        origin = parse_source(source)
    except ValueError as error:
        stop(f"{source} {error}")
    if not isinstance(origin, HubSource | OllamaSource):
        stop(f"{source} is not in a hub: set its sha256 in the inventory, as sha256sum prints it")
    typer.echo(f"resolving {source}", err=True)
    try:
        with Hubs(addresses=addresses) as hubs:
            include = [str(each) for each in record.get("include") or ()]
            return {lock_key(record): hubs.pins(origin, record.get("revision"), include)}
    except HubError as error:
        stop(f"{source} {error}")
