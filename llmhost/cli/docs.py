"""`llmhost docs`: the documentation of this version, which is part of the package."""

from typing import Annotated

import typer

from llmhost.cli.errors import stop
from llmhost.inventory.mistakes import nearest
from llmhost.resources import PAGES


def docs(
    page: Annotated[str, typer.Argument(help="Name of a page, such as options")] = "",
) -> None:
    """Print a page of the documentation, or the list of pages."""
    pages = {path.stem: path for path in sorted(PAGES.glob("*.md"))}
    schemas = {path.name: path for path in PAGES.glob("*.schema.json")}
    if page in schemas:
        typer.echo(schemas[page].read_text(encoding="utf-8"), nl=False)
    elif page in pages:
        typer.echo(pages[page].read_text(encoding="utf-8"), nl=False)
    elif page:
        stop(
            f"'{page}' is not a page;"
            f" {nearest(page, pages, 'to list the pages, run: llmhost docs')}"
        )
    else:
        width = max(map(len, pages))
        for name, path in pages.items():
            title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            typer.echo(f"{name:<{width}}  {title}")
