"""`llmhost deploy`: run pyinfra from llmhost's own Python environment."""

from pathlib import Path
from typing import Annotated

import typer

from llmhost.cli.arguments import Inventory
from llmhost.cli.errors import check_inventory_file
from llmhost.cli.run import become_pyinfra
from llmhost.resources import CONFIG, DEPLOY


def deploy(
    inventory: Inventory,
    options: Annotated[
        list[str] | None, typer.Argument(help="pyinfra options, such as --limit HOST or -y")
    ] = None,
) -> None:
    """Bring the hosts to the declared state: runs `pyinfra INVENTORY deploy.py`.

    Uses deploy.py in the current directory, or the one that comes with llmhost.
    """
    check_inventory_file(inventory)
    config = [] if Path("config.py").is_file() else ["--config", str(CONFIG)]
    become_pyinfra([*config, inventory, str(deploy_file()), *(options or [])])


def deploy_file() -> Path:
    """deploy.py in the current directory, or the one that comes with llmhost."""
    own = Path("deploy.py")
    return own if own.is_file() else DEPLOY


deploy.context_settings = {"ignore_unknown_options": True}  # type: ignore[attr-defined]
