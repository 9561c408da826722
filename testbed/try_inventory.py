"""`script/try INVENTORY`: the settings of a site's server on a test machine, for CI.

Deployed, deployed again with nothing left to change, rebooted, verified from outside, removed.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console

from testbed import Lan, Machine, MachineError

_INVENTORY = """\
import json
from pathlib import Path

servers = [tuple(each) for each in json.loads(Path(__file__).with_name("servers.json").read_text())]
"""
_SMALL = {"preflight_min_memory_gib": 1.0, "preflight_min_free_disk_gib": 3.0}
"""Test machines are small; the site's requirements apply to its real server."""
_console = Console(highlight=False)


def trial(
    inventory: Annotated[str, typer.Argument(help="Inventory file, such as inventory/site.py")],
    host: Annotated[str, typer.Option(help="Which of its hosts; the first if not given")] = "",
    container: Annotated[
        bool,
        typer.Option(
            "--container",
            help="Use a container instead of a virtual machine: faster, shares the kernel",
        ),
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write verify's page to this file")] = None,
) -> None:
    """Deploy a host's settings to a new machine, and verify them. The machine replaces the host:
    its address and login are not used.
    """
    if os.geteuid() != 0:
        sys.exit("error: test machines need root; run: sudo script/try")
    try:
        name, data = _declared(inventory, host)
        with TemporaryDirectory(prefix="llmhost-try-") as place, Lan.create("try") as lan:
            with _step(f"A machine for {name}"):
                machine = lan.machine(name, kind="nspawn" if container else "vm")
                outside = shlex.join(lan.client("client").command([]))
            site = _site(Path(place), name, data, machine)
            _prove(site, machine, outside, html)
    except MachineError as error:
        sys.exit(f"error: {error}")


def _declared(inventory: str, host: str) -> tuple[str, dict[str, Any]]:
    """Name and merged data of the host, as pyinfra reads the inventory."""
    told = _run("pyinfra", inventory, "debug-inventory", "--json", quiet=True)
    hosts = {each["name"]: each["data"] for each in json.loads(told)}
    name = host or next(iter(hosts))
    if name not in hosts:
        raise MachineError(f"{inventory} has no host {name}; it has: {', '.join(hosts)}")
    return name, hosts[name]


def _site(place: Path, name: str, data: dict[str, Any], machine: Machine) -> Path:
    """An inventory with this machine instead of the host, and its own authority."""
    settings = {k: v for k, v in data.items() if not k.startswith(("ssh_", "_"))}
    ours = {"ssh_config_file": str(machine.ssh_config), "gateway_ca_directory": str(place / "ca")}
    (place / "servers.json").write_text(json.dumps([(name, settings | _SMALL | ours)]))
    site = place / "site.py"
    site.write_text(_INVENTORY)
    return site


def _prove(site: Path, machine: Machine, outside: str, html: Path | None) -> None:
    with _step("Deploy"):
        _run("pyinfra", str(site), "deploy.py", "-y")
    with _step("Deploy again: nothing may change"):
        _run("llmhost", "plan", str(site))
        told = json.loads(_run("pyinfra", str(site), "deploy.py", "-y", "--json", quiet=True))
        changed = [each["name"] for each in told["results"]["operations"] if each["success"]]
        if changed:
            raise MachineError(f"the second run changed something: {', '.join(changed)}")
    with _step("Reboot"):
        machine.reboot()
    with _step("Verify, from another machine too"):
        page = ["--html", str(html)] if html else []
        _run("llmhost", "verify", str(site), "--outside", outside, *page)


def _run(program: str, *arguments: str, quiet: bool = False) -> str:
    """Run a program of llmhost; returns its output if `quiet`. Raises MachineError if it fails."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE if quiet else None, text=True)
    if result.returncode:
        raise MachineError(f"`{shlex.join(command)}` failed: see its output above")
    return result.stdout or ""


@contextmanager
def _step(title: str) -> Iterator[None]:
    _console.print(f"[bold]--> {title}[/bold]")
    begun = time.monotonic()
    yield
    _console.print(f"    {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    typer.run(trial)
