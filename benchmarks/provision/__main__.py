"""How long a rerun takes, and a look: llmhost against Ansible, on the demo machine.

Needs a demo that is up (script/demo). Both tools work on the same server, in turns. A rerun must
report exactly the changes that there are to make; what is printed are medians in seconds.
"""

import json
import os
import re
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

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DEMO = Path(os.environ.get("LLMHOST_DEMO", ".demo"))
SERVER = "llm-demo"
CHANGED = "/etc/apt/apt.conf.d/60llmhost"
CHANGE = "System | Configure apt and its automatic updates"
_FILES = "etc/apt/apt.conf.d etc/sysctl.d etc/docker/daemon.json etc/default/ufw etc/ufw"
_FILES += " etc/nginx etc/logrotate.d etc/default/mtail etc/mtail"
_FILES += " opt/llmhost/compose.yaml opt/llmhost/services var/lib/llmhost/receipt.json"


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def ssh(command: str) -> bytes:
    arguments = ["ssh", "-F", str(DEMO / "ssh_config"), SERVER, command]
    return subprocess.run(arguments, check=True, capture_output=True).stdout


def timed(command: list[str], **environment: str) -> tuple[float, str]:
    """Seconds of wall-clock time and output of a command that has to succeed."""
    begun = time.perf_counter()
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - begun
    if result.returncode:
        sys.exit(f"error: {' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return seconds, result.stdout


def pyinfra(*expected: str) -> float:
    """A deploy, which must change what is expected and nothing else."""
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
    ssh(f"rm {CHANGED}")


def ansible(tree: Path, image: str, *options: str, changes: int = 0) -> float:
    """The playbook, which must make so many changes."""
    config = f"-F {DEMO / 'ssh_config'} -o ControlMaster=auto -o ControlPersist=60"
    command = [program("ansible-playbook"), "-i", f"{SERVER},", str(HERE / "playbook.yml")]
    command += ["-e", json.dumps({"tree": str(tree), "image": image})]
    command += options
    seconds, report = timed(
        command,
        ANSIBLE_PIPELINING="1",
        ANSIBLE_SSH_ARGS=config,
        ANSIBLE_PYTHON_INTERPRETER="/usr/bin/python3",
    )
    if not re.search(rf"changed={changes}\s", report):
        sys.exit(f"error: the playbook was to make {changes} changes:\n{report}")
    return seconds


def copy_of_the_server(directory: Path) -> str:
    """Fetch the managed files, for the playbook to declare; returns the engine's image."""
    packed = ssh(f"tar -C / -czp {_FILES}")
    subprocess.run(["tar", "-xzp", "-C", str(directory)], input=packed, check=True)
    return ssh("docker inspect -f '{{.Config.Image}}' llmhost-llamacpp-1").decode().strip()


def main(
    rounds: Annotated[int, typer.Option(help="Runs of each; the median counts")] = 5,
) -> None:
    """Print the table of medians and ratios."""
    if not (DEMO / "ssh_config").exists():
        sys.exit("error: there is no demo machine; start it with script/demo")
    with tempfile.TemporaryDirectory() as directory:
        image = copy_of_the_server(Path(directory))
        runs = [one_round(Path(directory), image) for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*runs, strict=True)]
    nothing, change, look, proof, their_nothing, their_change, their_look = medians
    table = Table(title=f"One server, median of {rounds}, seconds")
    for column in ("what", "llmhost", "ansible-playbook", "takes"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for label, own, theirs in (
        ("rerun, nothing to do", nothing, their_nothing),
        ("rerun, one file to correct", change, their_change),
        ("look: plan, --check", look, their_look),
    ):
        ratio = f"{theirs / own:.1f} times as long"
        table.add_row(label, f"{own:.2f}", f"{theirs:.2f}", ratio)
    table.add_row("verify: 120 checks of what it does", f"{proof:.2f}", "", "")
    Console().print(table)


def one_round(tree: Path, image: str) -> tuple[float, ...]:
    """Seconds of each command, llmhost's first."""
    nothing, look, proof = pyinfra(), plan(), verify()
    drifted()
    change = pyinfra(CHANGE)
    their_nothing, their_look = ansible(tree, image), ansible(tree, image, "--check")
    drifted()
    their_change = ansible(tree, image, changes=1)
    return nothing, change, look, proof, their_nothing, their_change, their_look


if __name__ == "__main__":
    typer.run(main)
