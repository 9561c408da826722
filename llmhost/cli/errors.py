"""How a command reports an error."""

from typing import NoReturn

import typer

ERROR = 1
DRIFT = 2


def stop(*sentences: str) -> NoReturn:
    """Print each sentence as an error (what is wrong, how to fix it) and exit with status 1."""
    from rich.console import Console  # only an error needs it
    from rich.markup import escape

    console = Console(stderr=True, soft_wrap=True)
    for sentence in sentences:
        console.print(f"[red]error:[/red] {escape(sentence)}", highlight=False)
    raise typer.Exit(ERROR)
