"""An inventory file as pyinfra reads it, without what a deploy needs."""

from pathlib import Path

from pyinfra.api import Inventory, State
from pyinfra.context import ctx_state

from llmhost.cli.errors import stop
from llmhost.cli.gevent_start import use_gevent


def load_inventory(path: str) -> Inventory:
    """The inventory in this file; stops with a sentence if it is missing, broken or empty."""
    use_gevent()  # else pyinfra_cli does it on import, slower
    from pyinfra_cli.exceptions import UnexpectedExternalError
    from pyinfra_cli.inventory import make_inventory

    if not Path(path).is_file():
        stop(f"inventory file {path} not found; give a file such as inventory/llm.py")
    try:
        with ctx_state.use(State()):
            inventory: Inventory = make_inventory(path, cwd=str(Path.cwd()))
    except UnexpectedExternalError as error:  # an inventory is the operator's Python code
        stop(f"{path} cannot be read: {type(error.exception).__name__}: {error.exception}")
    except SyntaxError as error:
        stop(f"{path} cannot be read: line {error.lineno}: {error.msg}")
    if len(inventory) == 0:
        stop(f"{path} declares no host; add one to a group, such as llm_servers")
    return inventory


def inventory_data(path: str) -> dict[str, dict[str, object]]:
    """Merged data of every host in an inventory file, by host name."""
    return {host.name: host.data.dict() for host in load_inventory(path)}
