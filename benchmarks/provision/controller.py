"""Cost of many hosts on the controller: deploy.py loaded for hosts that do not exist.

Nothing is executed and there are no connections: this part of a run needs one processor of the
controller. Each number of hosts has its own process.
"""

import json
import resource
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
_SITE = {
    "services": ["llamacpp"],
    "llamacpp_image": f"registry.example/llama.cpp:1@sha256:{'0' * 64}",
    "gateway_tls": "off",
    "api_clients": [
        {"name": f"client-{n}", "sha256": sha256(bytes([n])).hexdigest()} for n in range(10)
    ],
    "models": [
        {
            "name": "model",
            "service": "llamacpp",
            "source": "https://models.example/model.gguf",
            "sha256": sha256(b"model").hexdigest(),
        }
    ],
}


def load(hosts: int) -> None:
    """Load deploy.py as `pyinfra -y` does, and print seconds and peak memory."""
    from gevent import monkey

    monkey.patch_all()
    begun = time.process_time()
    import pyinfra
    from pyinfra.api import Config, Inventory, State
    from pyinfra.api.state import StateStage
    from pyinfra.context import ctx_config, ctx_inventory, ctx_state
    from pyinfra_cli.util import load_deploy_file

    pyinfra.is_cli = True
    sys.path.append(str(ROOT))
    names = [f"@fake/host-{number}" for number in range(hosts)]
    inventory, config = Inventory((names, {}), hosts=(names, _SITE)), Config()
    state = State(check_for_changes=False)
    state.cwd = str(ROOT)
    with ctx_state.use(state), ctx_config.use(config), ctx_inventory.use(inventory):
        state.init(inventory, config)
        for host in inventory:
            state.activate_host(host)
        state.set_stage(StateStage.Prepare)
        load_deploy_file(state, str(ROOT / "deploy.py"))
    operations = sum(map(len, state.ops.values()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([time.process_time() - begun, peak, operations]))


def main(
    hosts: Annotated[list[int] | None, typer.Argument(help="Numbers of hosts")] = None,
    only: Annotated[
        int, typer.Option(help="Load for this number of hosts, in this process", hidden=True)
    ] = 0,
) -> None:
    """Print processor time and memory by number of hosts."""
    if only:
        load(only)
        return
    table = Table(title="deploy.py loaded, LLM servers with one service")
    for column in ("hosts", "operations", "processor seconds", "milliseconds a host", "peak"):
        table.add_column(column, justify="right")
    first = 0.0
    for number in hosts or [1, 16, 64, 200]:
        command = [sys.executable, "-m", "benchmarks.provision.controller", f"--only={number}"]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        seconds, peak, operations = json.loads(said.splitlines()[-1])
        first = first or seconds
        each = f"{1000 * (seconds - first) / (number - 1):.0f}" if number > 1 else ""
        table.add_row(str(number), str(operations), f"{seconds:.2f}", each, f"{peak:.0f} MiB")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
