"""`llmhost stop`, `llmhost start` and `llmhost restart`: one service of deployed servers."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from pyinfra.api import State
from rich.console import Console
from rich.markup import escape

from llmhost.cli.arguments import Hosts, Inventory
from llmhost.cli.errors import stop
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.locked_operations import Call, run_locked
from llmhost.cli.messages import Messages
from llmhost.cli.session import checked_site, connected, hosts_within
from llmhost.docker.compose import Project
from llmhost.operations import services
from llmhost.operations.changes import reasons
from llmhost.settings import Settings

Service = Annotated[str, typer.Argument(help="Name of the service, as in services")]
_console = Console(soft_wrap=True, highlight=False)


def stop_service(service: Service, inventory: Inventory, hosts: Hosts = None) -> None:
    """Stop a service until it is started again: deploys and reboots leave it stopped.

    The server records who stopped it and when, in stopped/SERVICE below stack_directory. plan,
    deploy and verify report it. Exit status: 0 or 1.
    """
    _run(
        services.stopped,
        "Stop",
        f"stopped; to start it again: llmhost start {service} {inventory}",
        service,
        inventory,
        hosts,
    )


def start_service(service: Service, inventory: Inventory, hosts: Hosts = None) -> None:
    """Start a stopped service and wait until it is healthy.

    The history of the server records who started it. Exit status: 0 or 1.
    """
    _run(services.started, "Start", "healthy", service, inventory, hosts)


def restart_service(service: Service, inventory: Inventory, hosts: Hosts = None) -> None:
    """Restart a service and wait until it is healthy.

    A service that was stopped with llmhost stop is not restarted. The history of the server records
    who restarted it. Exit status: 0 or 1.
    """
    _run(services.restarted, "Restart", "restarted and healthy", service, inventory, hosts)


def _run(
    operation: Any, verb: str, result: str, service: str, path: str, names: list[str] | None
) -> None:
    """Run an operation on the hosts that declare the service; stops if it fails on one."""
    projects = _projects(service, path, names or [])
    with connected(path, list(projects)) as (state, messages):
        title = f"{verb} {service}"
        calls = {
            host: Call(operation, title, (projects[host.name], service))
            for host in sorted(state.active_hosts, key=lambda host: host.name)
        }
        failed = run_locked(state, calls)
        for host in calls:
            if host.name not in failed:
                notes = [note for op in host.op_hash_order for note in reasons(host, op).notes]
                line = f"{host.name}: {service} is {result}" + "".join(f"; {n}" for n in notes)
                _console.print(escape(line))
        _report(projects, failed, state, messages)


def _projects(service: str, path: str, limit: list[str]) -> dict[str, Project]:
    """The projects with the service, by host; stops if there is none."""
    inventory = load_inventory(path)
    hosts = hosts_within(inventory, limit)
    site = checked_site(inventory, hosts)
    declared = {host.name: site[host.name].settings for host in hosts}
    found = {name: _project(each) for name, each in declared.items() if service in each.services}
    if not found:
        known = sorted({name for each in declared.values() for name in each.services})
        listed = f"declared services: {', '.join(known)}" if known else "none is declared"
        where = " ".join(limit) or path
        stop(f"the service {service} is not declared for {where}; {listed}")
    return found


def _project(settings: Settings) -> Project:
    """What the operations need; they write no file of the project."""
    stack = settings.stack
    return Project(
        name=stack.project,
        directory=stack.directory,
        root="",
        services=dict.fromkeys(settings.services, ""),
        images={},
        start_timeout_seconds=stack.start_timeout_seconds,
    )


def _report(
    projects: Mapping[str, Project],
    failed: Mapping[str, list[str]],
    state: State,
    messages: Messages,
) -> None:
    """Stop with the reasons of hosts that failed or could not be reached, if there are any."""
    why = [f"{name}: {sentence}" for name, sentences in failed.items() for sentence in sentences]
    reached = {host.name for host in state.activated_hosts}
    for name in sorted(projects.keys() - reached):
        why += [f"{name}: {sentence}" for sentence in messages.about(name)]
    if why:
        stop(*why)
