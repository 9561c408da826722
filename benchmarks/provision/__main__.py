"""Duration of a rerun and of a dry run: llmhost and Ansible on the demo machine.

Requires a running demo (script/demo). Both tools deploy the same server, alternately. A rerun must
report exactly the expected changes; the results are medians in seconds.
"""

import json
import os
import runpy
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.provision.tools import Server, ansible, declare, program, timed
from llmhost.inventory.reader import read_settings

DEMO = Path(os.environ.get("LLMHOST_DEMO", ".demo")).resolve()
SERVER = Server("llm-demo", DEMO / "ssh_config")
CHANGED = "/etc/apt/apt.conf.d/zz-llmhost"
CHANGE = "System | Configure apt and its automatic updates"


def pyinfra(*expected: str) -> float:
    """A deploy, which must make exactly the expected changes."""
    seconds, report = timed([program("pyinfra"), "inventory/demo.py", "deploy.py", "-y", "--json"])
    operations = json.loads(report)["results"]["operations"]
    changed = [operation["name"] for operation in operations if operation["success"]]
    if changed != [*expected]:
        sys.exit(f"error: the rerun was to change {expected}, and changed {changed}")
    return seconds


def plan() -> float:
    return timed([program("llmhost"), "plan", "inventory/demo.py"])[0]


def verify() -> float:
    values = dict(line.split("=", 1) for line in (DEMO / "env").read_text().splitlines())
    return timed([program("llmhost"), "verify", "inventory/demo.py", "--", "-q"], **values)[0]


def drifted() -> None:
    SERVER.ssh(f"rm {CHANGED}")


def playbook(tree: Path, *options: str, changes: int = 0) -> float:
    """The playbook, which must make this number of changes."""
    seconds, changed = ansible(SERVER, tree, *options)
    if changed != changes:
        sys.exit(f"error: the playbook was to make {changes} changes, and made {changed}")
    return seconds


def main(
    rounds: Annotated[int, typer.Option(help="Runs of each; the median counts")] = 5,
) -> None:
    """Print the table of medians and ratios."""
    if not (DEMO / "ssh_config").exists():
        sys.exit("error: there is no demo machine; start it with script/demo")
    with tempfile.TemporaryDirectory() as directory:
        _, data = runpy.run_path("inventory/demo.py")["demo"]
        declare(SERVER, read_settings(data), Path(directory))
        runs = [one_round(Path(directory)) for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*runs, strict=True)]
    nothing, change, look, proof, their_nothing, their_change, their_look = medians
    table = Table(title=f"One server, median of {rounds}, seconds")
    for column in ("what", "llmhost", "ansible-playbook", "takes"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for label, own, theirs in (
        ("rerun, nothing to do", nothing, their_nothing),
        ("rerun, one file to correct", change, their_change),
        ("dry run: plan, --check", look, their_look),
    ):
        ratio = f"{theirs / own:.1f} times as long"
        table.add_row(label, f"{own:.2f}", f"{theirs:.2f}", ratio)
    table.add_row("verify", f"{proof:.2f}", "", "")
    Console().print(table)


def one_round(tree: Path) -> tuple[float, ...]:
    """Seconds of each command, llmhost's first."""
    nothing, look, proof = pyinfra(), plan(), verify()
    drifted()
    change = pyinfra(CHANGE)
    their_nothing, their_look = playbook(tree), playbook(tree, "--check")
    drifted()
    their_change = playbook(tree, changes=1)
    return nothing, change, look, proof, their_nothing, their_change, their_look


if __name__ == "__main__":
    typer.run(main)
