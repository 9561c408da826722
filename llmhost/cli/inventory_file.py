"""An inventory file as pyinfra reads it, without what a deploy needs."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from pyinfra.api import Inventory, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state

from llmhost.cli.errors import check_inventory_file, source_mistake, stop
from llmhost.cli.gevent_start import use_gevent
from llmhost.inventory.groups import GROUP


class InventoryError(ValueError):
    """Why an inventory file cannot be used, in a sentence or several lines."""


def load_inventory(path: str) -> Inventory:
    """The inventory in this file; stops with a sentence if it is missing, broken or empty."""
    check_inventory_file(path)
    try:
        return read_inventory(path)
    except InventoryError as error:
        stop(*str(error).splitlines())


def read_inventory(path: str) -> Inventory:
    """The inventory in this file. Raises InventoryError if it is broken or empty."""
    if mistake := source_mistake(path):
        raise InventoryError(mistake)
    use_gevent()  # else pyinfra_cli does it on import, slower
    from pyinfra_cli.exceptions import CliError, UnexpectedExternalError
    from pyinfra_cli.inventory import make_inventory

    from llmhost.operations.pyinfra_patches import check_groups

    check_groups()
    try:
        # What an inventory prints is not the output of the command, which may be JSON.
        with ctx_state.use(State()), redirect_stdout(sys.stderr):
            inventory: Inventory = make_inventory(path, cwd=str(Path.cwd()))
    except UnexpectedExternalError as error:  # an inventory is the operator's Python code
        raise InventoryError(
            f"{path} cannot be read: {type(error.exception).__name__}: {error.exception}"
        ) from None
    except SystemExit:
        raise InventoryError(f"{path} cannot be read: it ends the program (sys.exit)") from None
    except CliError as error:
        raise InventoryError(error.message) from None
    except (TypeError, ValueError, IndexError, PyinfraError):
        raise InventoryError(f"{path} cannot be read: {GROUP}") from None
    if len(inventory) == 0:
        raise InventoryError(f"{path} declares no host; add one to a group, such as llm_servers")
    return inventory


def inventory_data(path: str) -> dict[str, dict[str, object]]:
    """Merged data of every host in an inventory file, by host name."""
    return {host.name: host.data.dict() for host in load_inventory(path)}
