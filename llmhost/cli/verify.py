"""`llmhost verify`: the server tests, run against the inventory's hosts."""

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from llmhost.cli.errors import stop
from llmhost.cli.offline import verify_offline
from llmhost.cli.progress import run_checks
from llmhost.cli.report import Run, write_page
from llmhost.cli.session import site_hosts
from llmhost.resources import CHECKS


def verify(
    inventory: Annotated[str, typer.Argument(help="Inventory file, such as inventory/llm.py")],
    limit: Annotated[list[str] | None, typer.Option(help="Host, pattern or group; repeat")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page for people to this file")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file")] = None,
    outside: Annotated[
        str | None,
        typer.Option(help="Command prefix that runs a command on another machine of the LAN"),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Cut the network, and see that all services do without it"),
    ] = False,
    evidence: Annotated[
        Path | None,
        typer.Option(help="Keep the proof that the GPU is used in this directory"),
    ] = None,
    pytest_args: Annotated[
        list[str] | None, typer.Argument(help="Further arguments for pytest, after --")
    ] = None,
) -> None:
    """Check that each server does what the inventory declares.

    LLMHOST_API_KEY in the environment lets it send real completions. The last lines tell what was
    proven on hardware, on a double, or not checked. Exit status: 0 or 1.

    With --offline nothing else is checked: the network of each host and of its containers is cut,
    but for who calls them; the containers are made anew, and each service gets a real request.
    Whatever a container tries to reach outside is told and fails. The network is always restored,
    by a timer on the host if by nobody else.
    """
    hosts = site_hosts(inventory, limit or [])
    if offline:
        results = [verify_offline(host) for host in hosts]
        raise typer.Exit(0 if all(results) else 1)
    if html and not html.resolve().parent.is_dir():
        stop(f"{html} can not be written: there is no directory {html.resolve().parent}")
    options = {"--junitxml": junit, "--outside": outside, "--evidence": evidence}
    begun, clock = datetime.now(UTC), time.monotonic()
    with TemporaryDirectory(prefix="llmhost-") as directory:
        site, records = Path(directory, "site.json"), Path(directory, "records")
        # Keys that begin with "_" are no options of llmhost.
        data = {each.name: {**each.data, "_groups": [*each.groups]} for each in hosts}
        site.write_text(json.dumps(data, default=str))
        records.touch()
        command = _pytest({**options, "--site": site, "--records": records})
        status = run_checks([*command, *(pytest_args or [])], records)
        if html:
            run = Run(inventory, limit or [], begun, time.monotonic() - clock)
            write_page(html, run, records)
            typer.echo(f"{html} shows the results")
    raise typer.Exit(min(status, 1))


def _pytest(options: Mapping[str, object]) -> list[str]:
    """The command that runs the server tests; options without a value are left out."""
    # What was not checked is told by reason, in the summary that tests/server adds.
    # -P and the rest: nothing in the current directory counts, be it a module or a configuration.
    command = [sys.executable, "-P", "-m", "pytest", str(CHECKS), "-p", "no:cacheprovider"]
    command += ["-c", str(CHECKS / "pytest.ini"), "--rootdir", str(CHECKS)]
    command += ["--confcutdir", str(CHECKS)]
    command += ["--tb=short", "-rfE"]
    given = [(name, str(value)) for name, value in options.items() if value]
    return [*command, *(word for option in given for word in option)]
