"""`llmhost drain`: take an LLM server out of its gateway's pool, or return it."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

import typer
from pyinfra.api import Host, State
from rich.console import Console
from rich.markup import escape

from llmhost.cli.arguments import Inventory
from llmhost.cli.errors import stop
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.locked_operations import Call, run_locked
from llmhost.cli.session import checked_site, connected
from llmhost.facts.connections import Connections
from llmhost.gateway import tree
from llmhost.gateway.pool import Drained
from llmhost.gateway.returner import Returner
from llmhost.inventory.site import Site, group_of, servers_of
from llmhost.operations import nginx
from llmhost.options.upstream import UpstreamServer
from llmhost.settings import Settings

STILL_BUSY = 2
_console = Console(soft_wrap=True, highlight=False)


def drain(
    server: Annotated[str, typer.Argument(help="Name of the server, as in gateway_upstreams")],
    inventory: Inventory,
    undo: Annotated[bool, typer.Option("--undo", help="Return the server to the pool")] = False,
    wait: Annotated[
        int, typer.Option(min=0, help="Seconds to wait for open requests to finish")
    ] = 60,
) -> None:
    """Stop sending requests to a server and wait for open requests to finish.

    The server stays drained until --undo, even when the gateway is deployed again. Any member
    drains its engine group. Exit status: 0 no request is left, 2 requests are left after the wait,
    1 error.
    """
    group, gateways, servers = _places(server, inventory)
    if group[0] != server and len(group) > 1:
        _console.print(f"{escape(server)} is in the engine group of {escape(group[0])}")
    with connected(inventory, list(gateways)) as (state, messages):
        calls = {
            host: drain_call(gateways[host.name], servers[host.name], undo=undo)
            for host in _done(state)
        }
        failed = run_locked(state, calls)
        for host in _done(state):
            verb = "sends requests to" if undo else "sends no new requests to"
            _console.print(f"{escape(host.name)} {verb} {escape(', '.join(servers[host.name]))}")
        waits = bool(_done(state)) and not undo
        left = await_end(_done(state), gateways, _by_server(servers), wait) if waits else {}
        why_not = [f"{name}: {sentence}" for name, why in failed.items() for sentence in why]
        if missing := sorted(gateways.keys() - {host.name for host in _done(state)}):
            about = [f"{name}: {each}" for name in missing for each in messages.about(name)]
            stop(*(why_not or about))
        raise typer.Exit(STILL_BUSY if any(left.values()) else 0)


def _places(
    server: str, inventory: str
) -> tuple[tuple[str, ...], dict[str, Settings], dict[str, list[str]]]:
    """A server's engine group, or itself; the settings of the gateways in front of it, by host; and
    its names at each of them. Stops if there is none."""
    loaded = load_inventory(inventory)
    hosts = [host for host in loaded if "gateway_upstreams" in host.data.dict()]
    site = checked_site(loaded, hosts)
    known = {host.name: site[host.name].settings for host in hosts}
    upstreams = [each for settings in known.values() for each in settings.gateway.upstreams]
    called = (
        host.name for each in upstreams if each.name == server for host in servers_of(each, site)
    )
    group = group_of(next(called, server), (host.data.dict() for host in loaded))
    servers = {name: _known(settings, {server, *group}, site) for name, settings in known.items()}
    if not any(servers.values()):
        names = sorted({each.name for each in upstreams})
        listed = f"known servers: {', '.join(names)}" if names else "no host has gateway_upstreams"
        stop(f"no gateway in {inventory} has the server {group[0]}; {listed}")
    found = {name: names for name, names in servers.items() if names}
    return group, {name: known[name] for name in found}, found


def _known(settings: Settings, servers: Collection[str], site: Site) -> list[str]:
    """The names at a gateway of those of the servers that it has."""
    return [
        each.name
        for each in settings.gateway.upstreams
        if each.name in servers or any(host.name in servers for host in servers_of(each, site))
    ]


def _by_server(servers: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """The gateways of each server, each with the server's name there, from the servers of each."""
    found: dict[str, dict[str, str]] = {}
    for gateway, names in servers.items():
        for name in names:
            found.setdefault(name, {})[gateway] = name
    return found


def _done(state: State) -> list[Host]:
    return sorted(state.active_hosts, key=lambda host: host.name)


def _upstream(settings: Settings, server: str) -> UpstreamServer | None:
    return next((each for each in settings.gateway.upstreams if each.name == server), None)


def drain_call(
    settings: Settings,
    servers: Sequence[str],
    *,
    undo: bool,
    by: Drained = Drained.BY_HAND,
    returner: Returner | None = None,
) -> Call:
    """The operation that drains servers of a gateway with these settings, or returns them. With a
    `returner`, the gateway does the latter by itself."""
    places = tree.NginxPaths()
    options = {
        "undo": undo,
        "directory": places.own,
        "status_port": settings.gateway.status_port,
        "tls": tree.tls(settings),
        "pool": tree.pool(settings),
        "by": by,
        "returner": returner,
    }
    arguments = (tuple(servers), *tree.configuration(settings, places))
    title = f"{'Undrain' if undo else 'Drain'} {', '.join(servers)}"
    return Call(nginx.drain, title, arguments, options)


def await_end(
    hosts: Sequence[Host],
    gateways: Mapping[str, Settings],
    servers: Mapping[str, Mapping[str, str]],
    wait: int,
) -> dict[str, int]:
    """Print how many connections to the servers are left until there is none; returns the last
    numbers. nginx keeps idle connections for a moment, so the first number may exceed the number
    of requests. `servers` are their names at the gateways."""
    deadline, shown = time.monotonic() + wait, dict[str, int]()
    while True:
        left = {
            server: sum(
                _connections(host, gateways[host.name], names[host.name])
                for host in hosts
                if host.name in names
            )
            for server, names in servers.items()
        }
        for server, count in left.items():
            if count != shown.get(server):
                _console.print(f"connections to {escape(server)}: {count}")
        if not any(left.values()) or time.monotonic() >= deadline:
            return left
        shown = left
        time.sleep(1)


def _connections(host: Host, settings: Settings, server: str) -> int:
    found = _upstream(settings, server)
    assert found, "only gateways of the server are queried"
    count: int = host.get_fact(Connections, address=str(found.address), port=found.port)
    return count
