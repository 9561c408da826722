"""How a command reports an error."""

import os
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

ERROR = 1
DRIFT = 2


def stop(*sentences: str) -> NoReturn:
    """Print each sentence as an error (what is wrong, how to fix it) and exit."""
    complain(*sentences)
    raise typer.Exit(ERROR)


def complain(*sentences: str) -> None:
    """Print each sentence as an error."""
    from rich.console import Console  # only an error needs it
    from rich.markup import escape

    console = Console(stderr=True, soft_wrap=True)
    for sentence in sentences:
        console.print(f"[red]error:[/red] {escape(sentence)}", highlight=False)


def check_inventory_file(path: str) -> None:
    """Stop if there is no such file."""
    if Path(path).is_dir():
        stop(f"{path} is a directory; give an inventory file, such as inventory/site.py")
    if not Path(path).is_file():
        stop(f"inventory file {path} not found; give a file such as inventory/site.py")
    if mistake := source_mistake(path):
        stop(mistake)


def source_mistake(path: str) -> str:
    """Why a file is not Python source; empty if it is."""
    try:
        source = Path(path).read_bytes()
        if source.startswith(BOM_UTF8):
            return f"{path} begins with a byte order mark; save it as UTF-8 without one"
        compile(source.decode(), path, "exec")
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return f"{path} is not a text file; give the inventory file, saved as UTF-8"
    except SyntaxError as error:
        kind = "" if path.endswith(".py") else "; an inventory is a Python file"
        line = f"line {error.lineno}: " if error.lineno else ""
        return f"{path} cannot be read: {line}{error.msg}{kind}"
    except (ValueError, RecursionError):
        return f"{path} cannot be read: it is not a Python file, such as inventory/site.py"
    return ""


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


def check_directory(directory: Path) -> None:
    """Stop, before the work whose result it gets, if a directory cannot be created or written."""
    whole = directory.absolute()
    existing = next(each for each in (whole, *whole.parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        stop(f"{directory} cannot be written to; choose another directory")


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Stop with a sentence if the file cannot be written."""
    try:
        yield
    except OSError as error:
        stop(f"{file} cannot be written: {error.strerror}")
