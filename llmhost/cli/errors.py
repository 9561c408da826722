"""How a command ends when the operator has to do something."""

from typing import NoReturn

import typer

ERROR = 1
DRIFT = 2


def stop(*sentences: str) -> NoReturn:
    """Print what is wrong and what to do, and end with the status of an error."""
    from rich.console import Console  # only an error needs it
    from rich.markup import escape

    console = Console(stderr=True, soft_wrap=True)
    for sentence in sentences:
        console.print(f"[red]error:[/red] {escape(sentence)}", highlight=False)
    raise typer.Exit(ERROR)
