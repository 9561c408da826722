"""`llmhost verify`: run the server tests against the inventory's hosts."""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from pyinfra.api import Host

from llmhost.cli.arguments import Inventory, Limit
from llmhost.cli.errors import check_directory, check_writable, stop
from llmhost.cli.hardening import verify_hardening
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.offline import verify_offline
from llmhost.cli.progress import INTERACTIVE, run_checks
from llmhost.cli.report import Run, write_page
from llmhost.cli.session import checked_hosts
from llmhost.inventory.site import SiteHost
from llmhost.resources import CHECKS
from llmhost.verify.report import parse, unproven

Html = Annotated[Path | None, typer.Option(help="Write an HTML report to this file")]
Junit = Annotated[Path | None, typer.Option(help="Write JUnit XML to this file")]
Outside = Annotated[
    str | None,
    typer.Option(help="Command prefix that runs a command on another machine in the LAN"),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Cut the network and check that all services work")
]
Hardening = Annotated[
    bool, typer.Option("--hardening", help="Check the items of docker-bench-security and lynis")
]
AsJson = Annotated[bool, typer.Option("--json", help="With --hardening: print JSON")]
Evidence = Annotated[
    Path | None, typer.Option(help="Write evidence that the GPU is used to this directory")
]
PytestArguments = Annotated[
    list[str] | None, typer.Argument(help="Additional arguments for pytest, after --")
]


def verify(
    inventory: Inventory,
    limit: Limit = None,
    html: Html = None,
    junit: Junit = None,
    outside: Outside = None,
    offline: Offline = False,
    hardening: Hardening = False,
    as_json: AsJson = False,
    evidence: Evidence = None,
    pytest_args: PytestArguments = None,
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
    if as_json and not hardening:
        stop("--json works only with --hardening: add --hardening, or use --junit FILE")
    options = {"--junitxml": junit, "--outside": outside, "--evidence": evidence}
    if offline and hardening:
        stop("--offline and --hardening are two runs: give one of them")
    if offline or hardening:
        more = {"--html": html, "--junit": junit, "--outside": outside, "--evidence": evidence}
        unused = [*(name for name, value in more.items() if value), *(pytest_args or [])]
        if unused:
            kind = "--offline" if offline else "--hardening"
            stop(f"{kind} does not use {', '.join(unused)}: remove it, or verify a second time")
    if html:
        check_writable(html)
    if junit:
        check_directory(junit.absolute().parent)
    loaded = load_inventory(inventory)
    hosts = checked_hosts(loaded, limit or [])
    if hardening:
        passed = verify_hardening(hosts, as_json=as_json)
    elif offline:
        passed = verify_offline(hosts)
    else:
        run = Run(inventory, limit or [], datetime.now(UTC))
        passed = _verify(hosts, client_keys(loaded), options, pytest_args or [], run, html)
    raise typer.Exit(0 if passed else 1)


def failing_hosts(inventory: str, names: Sequence[str]) -> list[str]:
    """Those of the hosts that do not do what the inventory declares."""
    with TemporaryDirectory(prefix="llmhost-") as directory:
        records = Path(directory, "records")
        loaded = load_inventory(inventory)
        hosts = checked_hosts(loaded, names)
        status = run_server_tests(hosts, {}, ["-q"], records, client_keys(loaded))
        whole, _, _ = records.read_text(encoding="utf-8").rpartition("\n")
    if status == 0:
        return []
    failed = unproven([parse(each) for each in whole.splitlines()])
    # Without such a host, pytest itself has failed.
    return [name for name in names if name in failed] or list(names)


def _verify(
    hosts: Sequence[SiteHost],
    known: Sequence[str],
    options: Mapping[str, object],
    arguments: Sequence[str],
    run: Run,
    html: Path | None,
) -> bool:
    """Run the server tests, and write the page if there is a path for it."""
    with TemporaryDirectory(prefix="llmhost-") as directory:
        records = Path(directory, "records")
        begun = time.monotonic()
        status = run_server_tests(hosts, options, arguments, records, known)
        if html:
            write_page(html, run, time.monotonic() - begun, records, status)
            typer.echo(f"Report written to {html}")
    return status == 0


def client_keys(inventory: Iterable[Host]) -> list[str]:
    """Digests of the keys of all clients in an inventory: a check that needs a key can then tell
    one of other hosts from one of nobody."""
    declared = (host.data.dict().get("api_clients") for host in inventory)
    lists = (found for found in declared if isinstance(found, list | tuple))
    clients = [each for found in lists for each in found if isinstance(each, Mapping)]
    names = ("sha256", "previous_sha256")
    return sorted({str(each[name]) for each in clients for name in names if each.get(name)})


def run_server_tests(
    hosts: Sequence[SiteHost],
    options: Mapping[str, object],
    arguments: Sequence[str],
    records: Path,
    known: Sequence[str],
) -> int:
    """Run the server tests on these hosts, with a record of each check; returns pytest's exit
    status. `known` are the `client_keys`."""
    site = records.with_name("site.json")
    # Keys that begin with "_" are not llmhost options.
    more = {each.name: {"_groups": [*each.groups], "_client_keys": known} for each in hosts}
    data = {each.name: {**each.data, **more[each.name]} for each in hosts}
    site.write_text(json.dumps(data, default=str))
    records.touch()
    command = _pytest({**options, "--site": site, "--records": records})
    if len(hosts) > 1 and not INTERACTIVE.intersection(arguments):
        command += _side_by_side(len(hosts))
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


def _side_by_side(hosts: int) -> list[str]:
    """pytest's arguments for several processes, each of which checks one host after the other.

    Checks mostly wait for their host: two processes for each processor keep it busy.
    """
    processes = min(hosts, max(4, 2 * (os.cpu_count() or 1)))
    # Without a percentage: checks that do not apply would be missing from it.
    return ["-p", "xdist", "-n", str(processes), "-o", "console_output_style=classic"]
