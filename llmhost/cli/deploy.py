"""`llmhost deploy`: pyinfra with llmhost's deploy, from the same environment."""

from pathlib import Path
from typing import Annotated

import typer

from llmhost.cli.errors import stop
from llmhost.cli.run import become_pyinfra
from llmhost.resources import DEPLOY


def deploy(
    inventory: Annotated[str, typer.Argument(help="Inventory file, such as inventory/site.py")],
    options: Annotated[
        list[str] | None, typer.Argument(help="Options of pyinfra, such as --limit HOST or -y")
    ] = None,
) -> None:
    """Make the hosts what the inventory declares: runs `pyinfra INVENTORY deploy.py`.

    deploy.py is the one of the current directory, or llmhost's own where there is none.
    """
    if not Path(inventory).is_file():
        stop(f"there is no inventory file {inventory}; name one, for example inventory/site.py")
    own = Path("deploy.py")
    become_pyinfra([inventory, str(own if own.is_file() else DEPLOY), *(options or [])])


deploy.context_settings = {"ignore_unknown_options": True}  # type: ignore[attr-defined]
