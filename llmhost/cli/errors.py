"""How a command reports an error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

ERROR = 1
DRIFT = 2


def stop(*sentences: str) -> NoReturn:
    """Print each sentence as an error (what is wrong, how to fix it) and exit."""
    from rich.console import Console  # only an error needs it
    from rich.markup import escape

    console = Console(stderr=True, soft_wrap=True)
    for sentence in sentences:
        console.print(f"[red]error:[/red] {escape(sentence)}", highlight=False)
    raise typer.Exit(ERROR)


def check_inventory_file(path: str) -> None:
    """Stop if there is no such file."""
    if Path(path).is_dir():
        stop(f"{path} is a directory; give an inventory file, such as inventory/site.py")
    if not Path(path).is_file():
        stop(f"inventory file {path} not found; give a file such as inventory/site.py")


def check_writable(file: Path) -> None:
    """Stop, before the work whose result it gets, if a file cannot be written."""
    directory = file.resolve().parent
    if not directory.is_dir():
        stop(f"{file} cannot be written: the directory {directory} does not exist")
    # A file is replaced, and what is none, such as /dev/stdout, is written to.
    needed = [directory] if file.is_file() or not file.exists() else []
    needed += [file] if file.exists() else []
    if file.is_dir() or not all(os.access(each, os.W_OK) for each in needed):
        stop(f"{file} cannot be written; choose another file, or change its permissions")


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Stop with a sentence if the file cannot be written."""
    try:
        yield
    except OSError as error:
        stop(f"{file} cannot be written: {error.strerror}")
