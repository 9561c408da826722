"""`llmhost verify`: the server tests, run against the inventory's hosts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

import typer

from llmhost.cli.errors import stop
from llmhost.cli.offline import verify_offline
from llmhost.cli.session import hosts_within, load_inventory
from llmhost.template import ROOT


def verify(
    inventory: Annotated[str, typer.Argument(help="Inventory file, such as inventory/llm.py")],
    limit: Annotated[list[str] | None, typer.Option(help="Host, pattern or group; repeat")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file")] = None,
    outside: Annotated[
        str | None,
        typer.Option(help="Command prefix that runs a command on another machine of the LAN"),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Cut the network, and see that all services do without it"),
    ] = False,
    pytest_args: Annotated[
        list[str] | None, typer.Argument(help="Further arguments for pytest, after --")
    ] = None,
) -> None:
    """Prove that the servers do what the inventory declares.

    LLMHOST_API_KEY in the environment lets it send real completions. Exit status: 0 or 1.

    With --offline nothing else is checked: the network of each host and of its containers is cut,
    but for who calls them; the containers are made anew, and each service gets a real request.
    Whatever a container tries to reach outside is told and fails. The network is always restored,
    by a timer on the host if by nobody else.
    """
    hosts = hosts_within(load_inventory(inventory), limit or [])
    if offline:
        results = [verify_offline(host.name, host.data.dict()) for host in hosts]
        raise typer.Exit(0 if all(results) else 1)
    tests = ROOT / "tests" / "server"
    if not tests.is_dir():
        stop(f"{tests} is missing; run llmhost from a complete checkout")
    command = [sys.executable, "-m", "pytest", str(tests), "-p", "no:cacheprovider"]
    command += ["--junitxml", str(junit)] if junit else []
    command += ["--outside", outside] if outside else []
    with NamedTemporaryFile("w", suffix=".json") as site:
        json.dump({host.name: host.data.dict() for host in hosts}, site, default=str)
        site.flush()
        result = subprocess.run(
            [*command, "--site", site.name, *(pytest_args or [])],
            # Whatever other plugins are installed: they cost time and change what is printed.
            env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            check=False,
        )
    raise typer.Exit(min(result.returncode, 1))
