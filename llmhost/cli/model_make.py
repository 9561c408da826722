"""`llmhost model make`: make the models that an inventory derives from others."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from llmhost.cli.console import table_console
from llmhost.cli.errors import stop
from llmhost.cli.hub import ADDRESSES
from llmhost.cli.model import (
    Entries,
    InventoryFile,
    Locked,
    app,
    by_lock_file,
    check_revisions,
    read_entries,
    resolve,
    write_entries,
)
from llmhost.inventory.mistakes import details, problem
from llmhost.making.job import Job
from llmhost.making.make import make, result_pins
from llmhost.making.measure import changed_ingredient, changed_text
from llmhost.making.report import Figures, MadeReport, made_report
from llmhost.making.tools import MakingError, Tools, end_with_programs
from llmhost.models.lock import is_pinned, with_pins
from llmhost.models.made import (
    derive_of,
    file_name,
    input_digest,
    made_directory,
    made_key,
    outdated,
    result_digest,
    with_known_evaluations,
)
from llmhost.options.model import Model
from llmhost.options.model_source import HUB, OLLAMA_LIBRARY
from llmhost.options.policy import ModelPolicy
from llmhost.secret import read_token
from llmhost.units import gib

Record = Mapping[str, Any]


@app.command("make")
def make_models(
    inventory: InventoryFile,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Name of one model; none: all")
    ] = None,
    tools: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Where the tools are: llama.cpp's programs, or python3; none: those on the PATH",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads for the evaluation; none: one for each core"),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Make again what was made as declared")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs model-make.schema.json")
    ] = False,
) -> None:
    """Make models as their `derive` says: convert, quantize, evaluate, and pin the result.

    Source, tools, evaluation and the result's digest are recorded in the lock file. A result that
    misses a limit is discarded, and nothing is recorded. What was made as declared is left as it
    is.
    """
    end_with_programs()
    found: Entries = {}
    wanted, programs = 0, Tools(tools and tools.absolute(), threads)
    files = by_lock_file(inventory)
    _check_names(files)
    for file, locked in files.items():
        check_revisions(locked)
        for record in locked.records:
            if record.get("derive") and model in (None, record.get("name")):
                wanted += 1
                found |= _made(file, locked, record, programs, update)
    if not wanted:
        stop(f"{inventory} derives no model{f' {model!r}' if model else ''}; {_fix(files)}")
    report = made_report(found)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        table_console().print(_table(report))


def _fix(files: Mapping[Path, Locked]) -> str:
    """What to do if no model is made."""
    records = (record for locked in files.values() for record in locked.records)
    names = [repr(str(record.get("name"))) for record in records if record.get("derive")]
    return f"write {', '.join(names)}" if names else "add derive to a model (llmhost docs making)"


def _check_names(files: Mapping[Path, Locked]) -> None:
    """Stop if two results that differ would get one name, and the later one replace the other. Lock
    files in one directory share that of the results."""
    names: dict[tuple[Path, str], tuple[object, str]] = {}
    for file, locked in files.items():
        known, home = read_entries(file), made_directory(file).absolute()
        for record in locked.records:
            if derive := derive_of(record):
                result = file_name(str(record.get("source")), derive.recipe)
                # One key may have sources of several revisions.
                what = made_key(record, derive), input_digest(with_pins(record, known))
                first = names.setdefault((home, result), (what, str(record.get("name"))))
                if first[0] != what:
                    stop(
                        f"{first[1]} and {record.get('name')} would both be made as {result}, and"
                        " are not the same: write another quantization, or for one of them a"
                        " stack_models_lock in another directory"
                    )


def _made(file: Path, locked: Locked, record: Record, tools: Tools, update: bool) -> Entries:
    """The entry of a model in the lock file, which is written; stops if it cannot be made."""
    name = str(record.get("name"))
    _check(record)
    derive = derive_of(record)
    assert derive
    known, added = read_entries(file), Entries()
    if not is_pinned(with_pins(record, known)):
        added = resolve(record, locked.addresses)
        known |= added
    pinned, key = with_pins(record, known), made_key(record, derive)
    old = known.get(key)
    job = _job(file, locked, pinned, known)
    current = old is not None and not outdated(old, pinned, derive)
    if current and old and (text := changed_text(derive, old)):
        typer.echo(f"{name}: {text} has changed since it was made", err=True)
        current = False
    if current and old and not update and _is_whole(job.file, old):
        typer.echo(f"{name}: was made as declared: {job.file}", err=True)
        return {name: old}
    # The same source and recipe give the same result, or an operator accepts another one.
    same = old and old.get("input") == input_digest(pinned) and not changed_ingredient(derive, old)
    expected = old if same and not update else None
    try:
        entry = make(job, tools, lambda text: typer.echo(f"{name}: {text}", err=True), expected)
    except MakingError as error:
        stop(f"{name} {error}")
    except OSError as error:
        stop(f"{name} cannot be made: {error.filename or job.directory}: {error.strerror}")
    entry = with_known_evaluations(entry, old)
    # Making takes hours: what others have written meanwhile stays.
    write_entries(file, read_entries(file) | added | {key: entry})
    return {name: entry}


def _is_whole(file: Path, entry: Record) -> bool:
    return file.exists() and result_digest(result_pins(file)) == result_digest(entry)


def _check(record: Record) -> None:
    """Stop with the mistakes in a record, except that it has not been made and pinned yet."""
    draft = {**record, "made_from": record.get("source"), "sha256": "ab" * 32}
    for pin in ("files", "include", "token"):
        draft.pop(pin, None)
    draft["revision"] = "ab" * 20
    try:
        Model.model_validate(draft)
    except ValidationError as error:
        found = [problem("", Model, each) for each in details(error)]
        stop(*(each.sentence(str(record.get("name"))) for each in found))


def _job(file: Path, locked: Locked, pinned: Record, known: Entries) -> Job:
    derive = derive_of(pinned)
    assert derive
    try:
        source = Model.model_validate({k: v for k, v in pinned.items() if k != "derive"})
        policies = tuple(map(ModelPolicy.model_validate, locked.policies))
    except ValidationError as error:
        first = next(details(error))
        place = ".".join(map(str, first["loc"]))
        what = first.get("ctx", {}).get("error", first["msg"])
        stop(f"{pinned.get('name')}: {place} {what}")
    entry = next(
        (e for e in known.values() if e.get("sha256") == source.sha256 and "input" not in e),
        {},
    )
    if source.files:
        entry = next((e for e in known.values() if e.get("files") == pinned.get("files")), {})
    return Job(
        source=source,
        derive=derive,
        directory=made_directory(file).absolute(),
        source_bytes=int(entry.get("bytes") or 0),
        mirrors=_mirrors(locked),
        token=_token(source),
        policies=policies,
    )


def _mirrors(locked: Locked) -> dict[str, str]:
    given = {
        option: locked.addresses.get(option) or os.environ.get(variable) or default
        for option, (variable, default) in ADDRESSES.items()
    }
    return {
        HUB: given["stack_huggingface_url"],
        OLLAMA_LIBRARY: given["stack_ollama_library_url"],
    }


def _token(source: Model) -> str:
    if source.token is None and not os.environ.get("HF_TOKEN"):
        return ""
    try:
        return read_token(source.token or "env:HF_TOKEN")
    except (OSError, ValueError, LookupError) as error:
        stop(f"{source.name}: its token cannot be read: {error}")


def _table(report: MadeReport) -> Table:
    """Before and after of each model."""
    table = Table(box=None)
    for column in ("model", "", "size", "memory", "speed", "accuracy"):
        table.add_column(column, overflow="fold")
    for model in report.models:
        before = [f"{each.measure} {each.before:.4f}" for each in model.evaluations]
        after = [
            f"{each.measure} {each.after:.4f} ({each.value:.4f}, limit {each.limit})"
            for each in model.evaluations
        ]
        table.add_row(escape(model.name), "before", *_figures(model.before), "\n".join(before))
        table.add_row("", "after", *_figures(model.after), "\n".join(after))
    return table


def _figures(found: Figures) -> tuple[str, str, str]:
    return gib(found.bytes), gib(found.memory_bytes), f"{found.rate:.1f} {found.unit}"
