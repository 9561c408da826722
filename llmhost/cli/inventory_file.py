"""An inventory file as pyinfra reads it, without what a deploy needs."""

from pathlib import Path

from pyinfra.api import Inventory, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state

from llmhost.cli.errors import check_inventory_file, stop
from llmhost.cli.gevent_start import use_gevent

_HOST = '("llm-server", {"ssh_hostname": "192.168.0.10"})'


class InventoryError(ValueError):
    """Why an inventory file cannot be used, in a sentence."""


def load_inventory(path: str) -> Inventory:
    """The inventory in this file; stops with a sentence if it is missing, broken or empty."""
    check_inventory_file(path)
    try:
        return read_inventory(path)
    except InventoryError as error:
        stop(str(error))


def read_inventory(path: str) -> Inventory:
    """The inventory in this file. Raises InventoryError if it is broken or empty."""
    use_gevent()  # else pyinfra_cli does it on import, slower
    from pyinfra_cli.exceptions import UnexpectedExternalError
    from pyinfra_cli.inventory import make_inventory

    try:
        with ctx_state.use(State()):
            inventory: Inventory = make_inventory(path, cwd=str(Path.cwd()))
    except UnexpectedExternalError as error:  # an inventory is the operator's Python code
        raise InventoryError(
            f"{path} cannot be read: {type(error.exception).__name__}: {error.exception}"
        ) from None
    except (TypeError, ValueError, PyinfraError):
        raise InventoryError(
            f"{path} cannot be read: a group is a list of hosts, each a name or {_HOST}"
        ) from None
    except SyntaxError as error:
        raise InventoryError(f"{path} cannot be read: line {error.lineno}: {error.msg}") from None
    if len(inventory) == 0:
        raise InventoryError(f"{path} declares no host; add one to a group, such as llm_servers")
    return inventory


def inventory_data(path: str) -> dict[str, dict[str, object]]:
    """Merged data of every host in an inventory file, by host name."""
    return {host.name: host.data.dict() for host in load_inventory(path)}
