"""How long a rerun takes that finds nothing to do: llmhost against Ansible, on the demo machine.

Needs a demo that is up (script/demo). Both tools work on the same server, in turns, and must
report zero changes; what is printed are medians in seconds.
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


def pyinfra() -> float:
    seconds, report = timed([program("pyinfra"), "inventory/demo.py", "deploy.py", "-y", "--json"])
    operations = json.loads(report)["results"]["operations"]
    if changed := [operation["name"] for operation in operations if operation["success"]]:
        sys.exit(f"error: the rerun was to change nothing, and changed: {', '.join(changed)}")
    return seconds


def plan() -> float:
    return timed([program("llmhost"), "plan", "inventory/demo.py"])[0]


def ansible(tree: Path, image: str) -> float:
    config = f"-F {DEMO / 'ssh_config'} -o ControlMaster=auto -o ControlPersist=60"
    command = [program("ansible-playbook"), "-i", f"{SERVER},", str(HERE / "playbook.yml")]
    command += ["-e", json.dumps({"tree": str(tree), "image": image})]
    seconds, report = timed(
        command,
        ANSIBLE_PIPELINING="1",
        ANSIBLE_SSH_ARGS=config,
        ANSIBLE_PYTHON_INTERPRETER="/usr/bin/python3",
    )
    if not re.search(r"changed=0\s", report):
        sys.exit(f"error: the playbook was to change nothing:\n{report}")
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
        runs = [(pyinfra(), plan(), ansible(Path(directory), image)) for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*runs, strict=True)]
    table = Table(title=f"Nothing to do, one server, median of {rounds}")
    for column in ("command", "seconds", "ansible-playbook takes"):
        table.add_column(column, justify="left" if column == "command" else "right")
    labels = ("pyinfra inventory deploy.py -y", "llmhost plan", "ansible-playbook")
    for label, seconds in zip(labels, medians, strict=True):
        table.add_row(label, f"{seconds:.2f}", f"{medians[-1] / seconds:.1f} times as long")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
