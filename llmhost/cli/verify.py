"""`llmhost verify`: run the server tests against the inventory's hosts."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from llmhost.cli.errors import stop
from llmhost.cli.hardening import verify_hardening
from llmhost.cli.offline import verify_offline
from llmhost.cli.progress import run_checks
from llmhost.cli.report import Run, write_page
from llmhost.cli.session import site_hosts
from llmhost.inventory.site import SiteHost
from llmhost.resources import CHECKS


def verify(
    inventory: Annotated[str, typer.Argument(help="Inventory file, such as inventory/llm.py")],
    limit: Annotated[
        list[str] | None, typer.Option(help="Host, pattern or group; repeatable")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write an HTML report to this file")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file")] = None,
    outside: Annotated[
        str | None,
        typer.Option(help="Command prefix that runs a command on another machine in the LAN"),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Cut the network and check that all services work"),
    ] = False,
    hardening: Annotated[
        bool,
        typer.Option("--hardening", help="Check the items of docker-bench-security and lynis"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --hardening: print JSON")] = False,
    evidence: Annotated[
        Path | None,
        typer.Option(help="Write evidence that the GPU is used to this directory"),
    ] = None,
    pytest_args: Annotated[
        list[str] | None, typer.Argument(help="Additional arguments for pytest, after --")
    ] = None,
) -> None:
    """Check that each server does what the inventory declares.

    Set LLMHOST_API_KEY to also send real completions. The last lines show what was proven on
    hardware, what on a double, and what was not checked. Exit status: 0 or 1.

    --offline runs only the offline check: it cuts the network of each host and its containers,
    except for incoming calls, recreates the containers, and sends each service a real request.
    Every attempt of a container to connect out is reported as a failure. The network is always
    restored, if necessary by a timer on the host.

    --hardening runs only the check of hardening: it prints, for each item of the benchmarks,
    whether it passed, is accepted and why, or failed.
    """
    hosts = site_hosts(inventory, limit or [])
    if as_json and not hardening:
        stop("--json needs --hardening")
    if hardening:
        raise typer.Exit(0 if verify_hardening(hosts, as_json=as_json) else 1)
    if offline:
        results = [verify_offline(host) for host in hosts]
        raise typer.Exit(0 if all(results) else 1)
    if html and not html.resolve().parent.is_dir():
        stop(f"{html} cannot be written: the directory {html.resolve().parent} does not exist")
    options = {"--junitxml": junit, "--outside": outside, "--evidence": evidence}
    begun, clock = datetime.now(UTC), time.monotonic()
    with TemporaryDirectory(prefix="llmhost-") as directory:
        records = Path(directory, "records")
        status = _run(hosts, options, pytest_args or [], records)
        if html:
            run = Run(inventory, limit or [], begun, time.monotonic() - clock)
            write_page(html, run, records)
            typer.echo(f"Report written to {html}")
    raise typer.Exit(min(status, 1))


def _run(
    hosts: Sequence[SiteHost],
    options: Mapping[str, object],
    arguments: Sequence[str],
    records: Path,
) -> int:
    """Run the server tests on these hosts, with a record of each check; returns pytest's exit
    status."""
    site = records.with_name("site.json")
    # Keys that begin with "_" are not llmhost options.
    data = {each.name: {**each.data, "_groups": [*each.groups]} for each in hosts}
    site.write_text(json.dumps(data, default=str))
    records.touch()
    command = _pytest({**options, "--site": site, "--records": records})
    return run_checks([*command, *arguments], records)


def _pytest(options: Mapping[str, object]) -> list[str]:
    """The command that runs the server tests; options without a value are left out."""
    # -P and the configuration options: ignore modules and pytest files in the current directory.
    # -rfE lists failures and errors only; the summary of the server tests lists unchecked reasons.
    command = [sys.executable, "-P", "-m", "pytest", str(CHECKS), "-p", "no:cacheprovider"]
    command += ["-c", str(CHECKS / "pytest.ini"), "--rootdir", str(CHECKS)]
    command += ["--confcutdir", str(CHECKS)]
    command += ["--tb=short", "-rfE"]
    given = [(name, str(value)) for name, value in options.items() if value]
    return [*command, *(word for option in given for word in option)]
