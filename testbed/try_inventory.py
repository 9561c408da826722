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

_site = json.loads(Path(__file__).with_name("site.json").read_text())
globals().update({group: [tuple(_site["host"])] for group in _site["groups"]})
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
        declared = _declared(inventory, host)
        with TemporaryDirectory(prefix="llmhost-try-") as place, Lan.create("try") as lan:
            with _step(f"A machine for {declared['name']}"):
                machine = lan.machine(declared["name"], kind="nspawn" if container else "vm")
                outside = shlex.join(lan.client("client").command([]))
            site = _site(Path(place), declared, machine)
            _prove(site, machine, outside, html)
    except MachineError as error:
        sys.exit(f"error: {error}")


def _declared(inventory: str, host: str) -> dict[str, Any]:
    """The host's `name`, `groups` and merged `data`, as pyinfra reads the inventory."""
    listed = _run("pyinfra", inventory, "debug-inventory", "--json", quiet=True)
    hosts = {each["name"]: each for each in json.loads(listed)}
    name = host or next(iter(hosts))
    if name not in hosts:
        raise MachineError(f"{inventory} has no host {name}; it has: {', '.join(hosts)}")
    return dict(hosts[name])


def _site(place: Path, declared: dict[str, Any], machine: Machine) -> Path:
    """An inventory with this machine instead of the host, and its own authority."""
    settings = {k: v for k, v in declared["data"].items() if not k.startswith(("ssh_", "_"))}
    ours = {"ssh_config_file": str(machine.ssh_config), "gateway_ca_directory": str(place / "ca")}
    # The group decides what is deployed: pyinfra adds one that is named after the file.
    groups = [each for each in declared["groups"] if each.isidentifier()] or ["servers"]
    host = [declared["name"], settings | _SMALL | ours]
    (place / "site.json").write_text(json.dumps({"groups": groups, "host": host}))
    site = place / "site.py"
    site.write_text(_INVENTORY)
    return site


def _prove(site: Path, machine: Machine, outside: str, html: Path | None) -> None:
    with _step("Deploy"):
        _run("pyinfra", str(site), "deploy.py", "-y")
    with _step("Deploy again: nothing may change"):
        _run("llmhost", "plan", str(site))
        report = json.loads(_run("pyinfra", str(site), "deploy.py", "-y", "--json", quiet=True))
        changed = [each["name"] for each in report["results"]["operations"] if each["success"]]
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
