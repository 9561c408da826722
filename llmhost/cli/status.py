"""`llmhost status`: the state of each host, in one round trip per host."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from pyinfra.api import Host, State
from rich.console import Console
from rich.live import Live

from llmhost.cli.arguments import Hosts, Inventory
from llmhost.cli.console import table_console
from llmhost.cli.errors import DRIFT, ERROR, stop
from llmhost.cli.messages import Messages
from llmhost.cli.parallel import Answer, each_of, run_on_each
from llmhost.cli.session import connected, dry_run
from llmhost.cli.status_table import shown
from llmhost.inventory.site import Site
from llmhost.operations.inventory import site_of
from llmhost.status.keys import unused, uses_of
from llmhost.status.logs import age_of
from llmhost.status.plan import HostPlan
from llmhost.status.probe import probe_command
from llmhost.status.report import (
    SCHEMA,
    HostStatus,
    StatusReport,
    host_status,
    unreadable,
    with_attention,
)
from llmhost.status.usage import entry_hosts, usage_command

ANSWER_SECONDS = 60
USAGE_SECONDS = 600
"""A log of many days takes longer to read."""


def status(
    inventory: Inventory,
    hosts: Hosts = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Also report what a deploy would change")
    ] = False,
    unused_for: Annotated[
        str,
        typer.Option(metavar="AGE", help="Also name API keys without a request for as long: 30d"),
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C")] = False,
    interval: Annotated[
        float, typer.Option(min=1, help="With --watch: seconds between two refreshes")
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs status.schema.json")
    ] = False,
) -> None:
    """Show the state of each host: services, GPUs, requests, disks, expiries, last deploy.

    Exit status: 0 all is fine, 2 something needs attention, 1 a host could not be reached or read.
    """
    limit = hosts or []
    try:
        age = age_of(unused_for) if unused_for else None
    except ValueError:
        stop(f"--unused-for {unused_for} is not an age; write one such as 30d")
    session = dry_run(inventory, limit) if plan else connected(inventory, limit, strict=False)
    with session as (state, messages):
        plans = _plans(state, messages) if plan else {}
        more = _Found(plans, _unused_keys(state, age) if age else {})
        found = _read(state, messages, more)
        if watch and not as_json:
            _watch(state, messages, more, interval, found)
    if as_json:
        typer.echo(json.dumps(asdict(StatusReport(SCHEMA, tuple(found)))))
    elif not watch:
        table_console().print(shown(found))
    raise typer.Exit(exit_status(found))


def exit_status(hosts: Sequence[HostStatus]) -> int:
    """The worst of all hosts."""
    statuses = {each.status for each in hosts}
    if "error" in statuses:
        return ERROR
    return DRIFT if "attention" in statuses else 0


@dataclass(frozen=True)
class _Found:
    """What is read once, by host: a line of its plan, and sentences about unused keys."""

    plans: Mapping[str, str]
    unused: Mapping[str, Sequence[str]]


def _limited(state: State) -> list[Host]:
    return sorted(filter(state.is_host_in_limit, state.inventory), key=lambda host: host.name)


def _read(state: State, messages: Messages, more: _Found) -> list[HostStatus]:
    site: Site = site_of(state)
    hosts = _limited(state)
    reached = {host: probe_command(site[host.name]) for host in hosts if host.connected}
    answers = run_on_each(reached, ANSWER_SECONDS)
    return [_status(host, site, answers, messages, more) for host in hosts]


def _status(
    host: Host, site: Site, answers: dict[str, Answer], messages: Messages, more: _Found
) -> HostStatus:
    answer = answers.get(host.name)
    if answer is None:
        return unreadable(host.name, messages.about(host.name)[-1])
    if answer.error:
        return unreadable(host.name, answer.error.splitlines()[-1])
    found = host_status(site[host.name], answer.output)
    plan = more.plans.get(host.name)
    if found.status == "error":
        return found
    sentences = [] if plan in (None, "nothing to do") else [f"plan: {plan}"]
    unused = more.unused.get(host.name, ())
    return with_attention(replace(found, plan=plan), [*sentences, *unused])


def _unused_keys(state: State, age: timedelta) -> dict[str, list[str]]:
    """Sentences about keys that were not used, by host."""
    site: Site = site_of(state)
    hosts = {host.name: host for host in _limited(state)}
    entries = entry_hosts(site, hosts)
    commands = {hosts[name]: usage_command(0) for name in entries if hosts[name].connected}
    answers = run_on_each(commands, USAGE_SECONDS, json.loads)
    failed = [name for name in entries if name not in answers or answers[name].error]
    if failed:
        why = f"the use of keys is not known: the log of {', '.join(failed)} could not be read"
        return {name: [why] for name in hosts}
    uses, now = uses_of(answer.output for answer in answers.values()), datetime.now(UTC)
    return {
        name: [
            f"{sentence}: llmhost key revoke {client.name} FILE"
            for client in site[name].settings.api_clients
            if (sentence := unused(client, uses, age, now))
        ]
        for name in hosts
    }


def _plans(state: State, messages: Messages) -> dict[str, str]:
    """A line for each host that was compared with its inventory."""
    from llmhost.cli.plan import host_plan  # only --plan needs it

    def line(each: HostPlan) -> str:
        if each.errors:
            return f"{each.status}: {each.errors[0]}"
        steps = [f"{step.component} | {step.operation}" for step in each.steps]
        return f"{len(steps)} to change: {'; '.join(steps)}" if steps else "nothing to do"

    hosts = [host for host in _limited(state) if host.connected]
    return {host.name: line(host_plan(state, host, messages)) for host in hosts}


def _watch(
    state: State,
    messages: Messages,
    more: _Found,
    interval: float,
    found: list[HostStatus],
) -> None:
    """Refresh the table until Ctrl-C; hosts that were lost are connected again."""
    console = Console(highlight=False)
    with (
        suppress(KeyboardInterrupt),
        Live(shown(found), console=console, auto_refresh=False, screen=console.is_terminal) as live,
    ):
        while True:
            live.update(shown(found), refresh=True)
            time.sleep(interval)
            for each in found:
                if each.status == "error":
                    _drop(state, each.host)
            _connect_again(state)
            found[:] = _read(state, messages, more)


def _drop(state: State, name: str) -> None:
    host = state.inventory.get_host(name)
    if host.connected:
        host.disconnect()
        host.connected = False


def _connect_again(state: State) -> None:
    lost = {host: None for host in _limited(state) if not host.connected}

    def connect(host: Host) -> Answer:
        host.connect(show_errors=True)
        if host.connected:
            state.activate_host(host)
        return Answer()

    each_of(lost, connect, ANSWER_SECONDS)
