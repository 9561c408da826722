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
    evidence: Annotated[
        Path | None,
        typer.Option(help="Keep the proof that the GPU is used in this directory"),
    ] = None,
    pytest_args: Annotated[
        list[str] | None, typer.Argument(help="Further arguments for pytest, after --")
    ] = None,
) -> None:
    """Prove that the servers do what the inventory declares.

    LLMHOST_API_KEY in the environment lets it send real completions. The last lines tell what was
    proven on hardware, on a double, or not checked. Exit status: 0 or 1.
    """
    hosts = hosts_within(load_inventory(inventory), limit or [])
    tests = ROOT / "tests" / "server"
    if not tests.is_dir():
        stop(f"{tests} is missing; run llmhost from a complete checkout")
    command = [sys.executable, "-m", "pytest", str(tests), "-p", "no:cacheprovider"]
    command += ["--junitxml", str(junit)] if junit else []
    command += ["--outside", outside] if outside else []
    command += ["--evidence", str(evidence)] if evidence else []
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
