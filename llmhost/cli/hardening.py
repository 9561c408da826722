"""`llmhost verify --hardening`: each item of the benchmarks on each server."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape

from llmhost.cli.errors import complain
from llmhost.cli.remote import RemoteError, remote
from llmhost.inventory.site import SiteHost
from llmhost.verify.hardening import (
    SCHEMA,
    HardeningReport,
    Verdict,
    count,
    host_hardening,
    items,
    script,
    verdicts,
)

_COLORS = {"passed": "green", "accepted": "yellow", "failed": "red"}
_console = Console(soft_wrap=True, highlight=False)


def verify_hardening(hosts: Sequence[SiteHost], *, as_json: bool) -> bool:
    """Print whether each item passes on each host, is accepted or fails. True if none fails, and
    each host could be read."""
    asked = {host.name: _verdicts(host) for host in hosts}
    found = {name: each for name, each in asked.items() if each is not None}
    if as_json:
        levels = {host.name: host.settings.system.hardening for host in hosts}
        each_host = (host_hardening(name, levels[name], of) for name, of in found.items())
        typer.echo(json.dumps(asdict(HardeningReport(SCHEMA, tuple(each_host))), indent=2))
    else:
        for name, each in found.items():
            _print(name, each)
    failed = any(each.outcome == "failed" for host in found.values() for each in host)
    return len(found) == len(asked) and not failed


def _verdicts(host: SiteHost) -> list[Verdict] | None:
    """None if the host cannot be read, which is printed."""
    every = items()
    try:
        with remote(host.name, host.data) as reached:
            output = reached.run(script(every))
        return [*verdicts(every, output, host.settings.system.hardening)]
    except RemoteError as error:
        complain(str(error))
    except ValueError as error:
        complain(f"{host.name}: {error}")
    return None


def _print(host: str, found: Sequence[Verdict]) -> None:
    for each in found:
        color = _COLORS[each.outcome]
        reason = f": {each.reason}" if each.reason else ""
        words = escape(f"{each.item.id}: {each.item.title}{reason}")
        _console.print(f"[{color}]{each.outcome}[/{color}]  {words}")
    counts = ", ".join(f"{number} {outcome}" for outcome, number in count(found).items())
    _console.print(escape(f"{host}: {counts}"))
