"""`llmhost logs`: the log of a service, or of the gateway, of several hosts at once."""

import json
import signal
from collections.abc import Callable, Iterator
from typing import Annotated

import gevent
import typer
from pyinfra.api import Host, State, StringCommand

from llmhost.cli.arguments import Hosts, Inventory
from llmhost.cli.errors import stop
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.messages import Messages
from llmhost.cli.session import checked_site, connected, hosts_within
from llmhost.inventory.role import Role
from llmhost.inventory.site import Site, SiteHost
from llmhost.inventory.site_reader import no_rules, no_site_rules
from llmhost.operations.connection_arguments import connection_arguments
from llmhost.operations.host_channel import LOST, open_channel
from llmhost.operations.inventory import site_of
from llmhost.status.logs import (
    GATEWAY,
    HEADER,
    Selection,
    log_command,
    request,
    row,
    seconds_of,
    without_secrets,
)


def logs(
    service: Annotated[str, typer.Argument(help="Name of the service, or gateway")],
    inventory: Inventory,
    hosts: Hosts = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until Ctrl-C")
    ] = False,
    since: Annotated[
        str, typer.Option(help="Only lines not older than this, such as 90s, 10m, 2h or 3d")
    ] = "",
    grep: Annotated[
        str, typer.Option(help="Only lines that match this extended regular expression")
    ] = "",
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, help="Only the last lines of each host")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print an object a line; see llmhost docs logs.schema.json"),
    ] = False,
) -> None:
    """Show the log of a service, or of the gateway, of several hosts at once.

    Without --since, --grep and --lines, the last 100 lines of each host. API keys are hidden.
    Exit status: 0, or 1 if a host could not be reached or has no such log.
    """
    if lines is None and not since and not grep:
        lines = 100
    selection = Selection(lines, _seconds(since), grep, follow)
    names = _hosts(service, inventory, hosts or [])
    printer = _Printer(service, len(names) > 1, as_json)
    with connected(inventory, names, strict=False) as (state, messages):
        site = site_of(state)
        active = sorted(state.active_hosts, key=lambda host: host.name)
        readers = [gevent.spawn(_read, host, site, service, selection, printer) for host in active]
        # Python's own KeyboardInterrupt would be printed by gevent's hub.
        interrupted = gevent.signal_handler(signal.SIGINT, gevent.killall, readers, block=False)
        gevent.joinall(readers, raise_error=True)
        interrupted.cancel()
        # The value of a killed one is an exception, not a reason.
        failed = [job.value for job in readers if isinstance(job.value, str) and job.value]
        failed += _unreached(state, messages)
    if failed:
        stop(*failed)


def _seconds(since: str) -> int | None:
    try:
        return seconds_of(since) if since else None
    except ValueError:
        stop(f"--since {since} is not an age; write one such as 90s, 10m, 2h or 3d")


def _hosts(service: str, path: str, limit: list[str]) -> list[str]:
    """Names of the hosts that have the log; stops if there is none."""
    inventory = load_inventory(path)
    hosts = hosts_within(inventory, limit)
    site = checked_site(inventory, hosts, no_rules, no_site_rules)
    found = [host.name for host in hosts if _has(site[host.name], service)]
    if not found:
        known = sorted({name for host in hosts for name in site[host.name].settings.services})
        stop(f"no host has a log of {service}; there are: {', '.join([GATEWAY, *known])}")
    return found


def _has(host: SiteHost, service: str) -> bool:
    if service == GATEWAY:
        return host.role is not Role.APP_SERVER
    return service in host.settings.services


class _Printer:
    """Prints lines, with the name of their host if there are several."""

    def __init__(self, service: str, several: bool, as_json: bool) -> None:
        self.is_gateway, self.several, self.as_json = service == GATEWAY, several, as_json
        self.headed = as_json or not self.is_gateway

    def print(self, host: str, line: str) -> None:
        if self.as_json:
            typer.echo(json.dumps({"host": host, **self._fields(line)}))
            return
        prefix = f"{host:<16} " if self.several else ""
        if not self.headed:
            self.headed = True
            typer.echo(f"{'host':<16} {HEADER}" if self.several else HEADER)
        found = request(line) if self.is_gateway else None
        typer.echo(prefix + (row(found) if found else without_secrets(line)))

    def _fields(self, line: str) -> dict[str, object]:
        found = request(line) if self.is_gateway else None
        return dict(found) if found else {"line": without_secrets(line)}


def _read(host: Host, site: Site, service: str, selection: Selection, printer: _Printer) -> str:
    """Print the log of one host; returns the reason if there is none."""
    command = StringCommand(log_command(site[host.name].settings.stack.project, service, selection))
    try:
        channel = open_channel(host, command, connection_arguments(host))
        try:
            for line in _lines(channel.read_line):
                printer.print(host.name, line)
            error = channel.read_error().strip()
        finally:
            channel.close()
    except BrokenPipeError:
        return ""  # nobody reads this output any longer
    except LOST as lost:
        return f"{host.name}: the connection was lost: {lost}"
    return f"{host.name}: {error}" if error else ""


def _lines(read_line: Callable[[], str]) -> Iterator[str]:
    while line := read_line():
        yield line.rstrip("\n")


def _unreached(state: State, messages: Messages) -> list[str]:
    """Why hosts could not be reached."""
    limited = filter(state.is_host_in_limit, state.inventory)
    missing = [host.name for host in limited if host not in state.activated_hosts]
    return [f"{name}: {sentence}" for name in missing for sentence in messages.about(name)]
