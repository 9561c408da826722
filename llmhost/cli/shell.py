"""`llmhost ssh` and `llmhost exec`: a shell on a host, and a command in a service's container."""

import shlex
import sys
from typing import Annotated

import typer

from llmhost.cli.arguments import HostName, Inventory, Limit
from llmhost.cli.errors import stop
from llmhost.cli.remote import LOCAL, Remote, remote
from llmhost.cli.session import site_hosts
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import no_rules


def ssh(
    inventory: Inventory,
    host: HostName,
    command: Annotated[
        list[str] | None, typer.Argument(help="Command, after --; none: a shell")
    ] = None,
) -> None:
    """Open a shell on a host, or run a command there.

    It uses OpenSSH with the connection settings of the inventory, as the login user. Exit status:
    that of ssh.
    """
    hosts = site_hosts(inventory, [host], no_rules)
    if len(hosts) > 1:
        stop(f"{host} matches {len(hosts)} hosts; give one of {_names(hosts)}")
    if hosts[0].name == LOCAL:
        stop(f"{LOCAL} is this machine: open a shell yourself")
    with remote(hosts[0].name, hosts[0].data) as machine:
        status = machine.interact(shlex.join(command or ()), as_root=False)
    raise typer.Exit(status)


def execute(
    service: Annotated[str, typer.Argument(help="Name of the service, as in services")],
    inventory: Inventory,
    command: Annotated[list[str], typer.Argument(help="Command, after --")],
    limit: Limit = None,
) -> None:
    """Run a command in the container of a service.

    On several hosts, it runs on one after the other. Exit status: that of the command; the highest
    one of several hosts.
    """
    hosts = site_hosts(inventory, limit or [], no_rules)
    having = [host for host in hosts if service in host.settings.services]
    if not having:
        known = sorted({name for host in hosts for name in host.settings.services})
        stop(f"no host declares the service {service}; declared: {', '.join(known) or 'none'}")
    statuses = []
    for host in having:
        if len(having) > 1:
            typer.echo(f"== {host.name}", err=True)
        with remote(host.name, host.data) as machine:
            statuses.append(_execute(machine, host, service, command))
    raise typer.Exit(max(statuses))


def _execute(machine: Remote, host: SiteHost, service: str, command: list[str]) -> int:
    container = f"{host.settings.stack.project}-{service}-1"
    options = ["--interactive", *(["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else [])]
    words = shlex.join(["docker", "exec", *options, container, *command])
    return machine.interact(f"exec {words}", as_root=True)


def _names(hosts: list[SiteHost]) -> str:
    return ", ".join(host.name for host in hosts)
