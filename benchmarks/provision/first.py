"""Duration from a bare machine to the demo's server: llmhost, a shell script, Ansible.

Each has its own machine in every round, on this computer, one after another. llmhost comes first,
because the others use the files that it created. Then `llmhost plan` shows what is still missing.
Requires root.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.provision.tools import (
    HERE,
    ROOT,
    Server,
    ansible,
    declare,
    program,
    site_data,
    timed,
)
from llmhost.inventory.reader import read_settings
from testbed import Lan
from testbed.image_registry import ImageRegistry


def by_llmhost(inventory: Path) -> float:
    return timed([program("pyinfra"), str(inventory), "deploy.py", "-y"])[0]


def by_shell(server: Server, tree: Path) -> float:
    """Pack, send and unpack the files, and run the script there."""
    begun = time.perf_counter()
    packed = subprocess.run(
        ["tar", "-C", str(tree), "-cz", "."], check=True, capture_output=True
    ).stdout
    server.ssh("mkdir /root/tree && tar -C /root/tree -xzp --no-same-owner", packed)
    server.ssh("cd /root/tree && sh -s", (HERE / "first.sh").read_bytes())
    server.ssh("rm -r /root/tree")
    return time.perf_counter() - begun


def left_to_do(inventory: Path) -> list[str]:
    """Changes that a run of llmhost would still make."""
    command = [program("llmhost"), "plan", str(inventory), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 2):
        sys.exit(f"error: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    (host,) = json.loads(done.stdout)["hosts"]
    return [step["operation"] for step in host["steps"]]


def main(
    rounds: Annotated[int, typer.Option(help="Machines of each; the median counts", min=1)] = 3,
) -> None:
    """Print the table of medians and ratios."""
    seconds: dict[str, list[float]] = {"llmhost": [], "shell": [], "ansible": []}
    rest: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as directory, Lan.create("first") as lan:
        place = Path(directory)
        tree = place / "tree"
        tree.mkdir()
        with ImageRegistry(lan.gateway, place / "registry") as registry:
            data = site_data(place, registry)
            for number in range(rounds):
                for tool, taken in seconds.items():
                    machine = lan.machine(f"{tool}-{number}")
                    machine.start()
                    server = Server(machine.name, machine.ssh_config)
                    inventory = _inventory(place, server, data)
                    if tool == "llmhost":
                        taken.append(by_llmhost(inventory))
                        if not number:
                            declare(server, read_settings(data), tree)
                    elif tool == "shell":
                        taken.append(by_shell(server, tree))
                    else:
                        taken.append(ansible(server, tree)[0])
                    rest[tool] = left_to_do(inventory)
                    print(f"{machine.name}: {taken[-1]:.1f} s, then left to do: {rest[tool]}")
                    machine.destroy()
    _print(seconds, rest, rounds)


def _inventory(place: Path, server: Server, data: dict[str, object]) -> Path:
    path = place / f"{server.name}.py"
    hosts = [(server.name, {"ssh_config_file": str(server.ssh_config)})]
    path.write_text(f"servers = ({hosts!r}, {data!r})\n")
    return path


def _print(seconds: dict[str, list[float]], rest: dict[str, list[str]], rounds: int) -> None:
    table = Table(title=f"A bare machine becomes a server, median of {rounds}")
    for column in ("by", "seconds", "llmhost takes", "left to do for llmhost"):
        table.add_column(column, justify="left" if column == "by" else "right")
    own = statistics.median(seconds["llmhost"])
    labels = {"shell": "shell script", "ansible": "ansible-playbook"}
    for tool, taken in seconds.items():
        median = statistics.median(taken)
        ratio = "" if tool == "llmhost" else f"{own / median:.2f} times as long"
        table.add_row(labels.get(tool, tool), f"{median:.1f}", ratio, str(len(rest[tool])))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
