"""`llmhost verify`: the server tests, run against the inventory's hosts."""

import json
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
    pytest_args: Annotated[
        list[str] | None, typer.Argument(help="Further arguments for pytest, after --")
    ] = None,
) -> None:
    """Prove that the servers do what the inventory declares.

    LLMHOST_API_KEY in the environment lets it send real completions. Exit status: 0 or 1.
    """
    hosts = hosts_within(load_inventory(inventory), limit or [])
    tests = ROOT / "tests" / "server"
    if not tests.is_dir():
        stop(f"{tests} is missing; run llmhost from a complete checkout")
    command = [sys.executable, "-m", "pytest", str(tests), "-p", "no:cacheprovider"]
    command += ["--junitxml", str(junit)] if junit else []
    command += ["--outside", outside] if outside else []
    with NamedTemporaryFile("w", suffix=".json") as site:
        # Keys that begin with "_" are no options of llmhost.
        data = {each.name: {**each.data.dict(), "_groups": [*each.groups]} for each in hosts}
        json.dump(data, site, default=str)
        site.flush()
        result = subprocess.run([*command, "--site", site.name, *(pytest_args or [])], check=False)
    raise typer.Exit(min(result.returncode, 1))
