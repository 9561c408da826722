"""Mistakes that involve several hosts of an inventory."""

from collections.abc import Iterator

from llmhost.gateway.keys import digest
from llmhost.inventory.engine_group_rules import group_problems
from llmhost.inventory.model_route_rules import site_model_problems
from llmhost.inventory.problem import Problem
from llmhost.inventory.role import GATEWAYS, Role
from llmhost.inventory.site import (
    LlmEndpoint,
    Site,
    SiteHost,
    hosts_at,
    llm_endpoint,
    servers_of,
)
from llmhost.secret import read_secret
from llmhost.services import catalogue
from llmhost.system.environment_file import unfit


def site_problems(host: SiteHost, site: Site) -> Iterator[Problem]:
    """Mistakes of one host that involve others."""
    yield from _same_machine(host, site)
    yield from _taken_addresses(host, site)
    yield from _other_services(host, site)
    yield from _mistaken_servers(host, site)
    yield from _unknown_gateway(host, site)
    yield from site_model_problems(host, site)
    yield from group_problems(host, site)
    settings = host.settings
    is_llm_server = host.role is Role.LLM_SERVER and GATEWAYS not in host.groups
    if is_llm_server and not settings.services:
        fix = f"add at least one of {', '.join(catalogue())}, or declare apps"
        yield Problem("services", "is empty, and this host is an LLM server", fix)
    if GATEWAYS in host.groups and not host.settings.gateway.upstreams:
        what = "is empty, and this host is in the group gateways"
        yield Problem("gateway_upstreams", what, "list the LLM servers behind this gateway")
    if host.role is Role.APP_SERVER:
        yield from _app_server_problems(host, site)


_CONNECTION = {"ssh_port": 22, "ssh_config_file": "", "ssh_paramiko_connect_kwargs": ""}


def _same_machine(host: SiteHost, site: Site) -> Iterator[Problem]:
    """Each run would apply both declarations to a machine that two names lead to."""
    for other in site.values():
        same = other.contact == host.contact != "" and other.name != host.name
        if same and _connection(other) == _connection(host):
            what = f"leads to {host.contact}, as that of {other.name} does"
            yield Problem("ssh_hostname", what, "correct the address, or remove one of the hosts")


def _connection(host: SiteHost) -> list[str]:
    return [str(host.data.get(key) or usual) for key, usual in _CONNECTION.items()]


def _taken_addresses(host: SiteHost, site: Site) -> Iterator[Problem]:
    for address in host.settings.network.addresses:
        for other in site.values():
            theirs = {str(each.ip) for each in other.settings.network.addresses}
            # The contact of a host whose address will change is still the old address.
            theirs |= set() if theirs else {other.contact}
            if other.name != host.name and str(address.ip) in theirs:
                what = f"holds {address.ip}, which is the address of {other.name}"
                yield Problem("network_addresses", what, "use a different address for each host")


def _other_services(host: SiteHost, site: Site) -> Iterator[Problem]:
    """Servers that would not answer each request that the gateway may send them. If it chooses by
    model, site_model_problems compares the models."""
    gateway = host.settings.gateway
    wanted = [each.name for each in host.settings.offered]
    for server in () if gateway.upstream_models else gateway.upstreams:
        for behind in servers_of(server, site):
            found = [each.name for each in behind.settings.offered]
            # The first one answers at `/`. A host that only computes is reported by its group.
            if found and (found[0] != wanted[0] or {*wanted} - {*found}):
                what = f"are {', '.join(wanted)}, and {behind.name} has {', '.join(found)}"
                fix = "declare the same services in the same order, or gateway_upstream_models"
                yield Problem("gateway_upstream_services", what, fix)


def _mistaken_servers(host: SiteHost, site: Site) -> Iterator[Problem]:
    """Servers that requests would reach under the name of another one, which would be drained
    instead; and the gateway itself, which would ask itself without end."""
    names: dict[str, str] = {}
    for server in host.settings.gateway.upstreams:
        at = [each.name for each in hosts_at(server, site)]
        found = servers_of(server, site)
        if len(found) > 1:
            which = " and ".join(each.name for each in found)
            what = f"has '{server.name}' at {server.endpoint}, which may be {which}"
            yield Problem("gateway_upstreams", what, "call it as the host in the inventory")
            continue
        for behind in found:
            if behind.name == host.name:
                what = f"has '{server.name}', which is this gateway"
                yield Problem("gateway_upstreams", what, "list LLM servers only")
            elif at and behind.name not in at:
                what = f"has '{server.name}' at {server.endpoint}, which is {at[0]}"
                yield Problem("gateway_upstreams", what, "correct the name or the address")
            elif other := names.get(behind.name):
                what = f"has {behind.name} twice, as '{other}' and as '{server.name}'"
                yield Problem("gateway_upstreams", what, "keep one")
            names[behind.name] = server.name


def _unknown_gateway(host: SiteHost, site: Site) -> Iterator[Problem]:
    """Servers that would refuse each request of this gateway, whatever the client's key."""
    gateway = host.settings.gateway
    if not gateway.upstream_key or not gateway.upstreams:
        return
    try:
        key = digest(read_secret(gateway.upstream_key))
    except ValueError:
        return  # upstream_rules reports it
    for behind in dict.fromkeys(
        each.name for s in gateway.upstreams for each in servers_of(s, site)
    ):
        if what := _why_refused(key, site[behind]):
            fix = f"give the gateway a client of its own in the api_clients of {behind}"
            yield Problem("gateway_upstream_key", what, fix)


def _why_refused(key: str, server: SiteHost) -> str:
    """Why a server refuses all requests with the key of this digest; empty if it does not."""
    for client in server.settings.api_clients:
        if key in (client.sha256, client.previous_sha256):
            if client.revoked:
                return f"refers to the key of '{client.name}', which {server.name} has revoked"
            if client.scope == "metrics":
                return f"refers to the key of '{client.name}', for metrics only on {server.name}"
            return ""
    return f"refers to a key that is not in the api_clients of {server.name}"


def _app_server_problems(host: SiteHost, site: Site) -> Iterator[Problem]:
    if host.settings.services:
        what = "are for LLM servers, and this host is in the group app_servers"
        yield Problem("services", what, "declare them for another host")
    called = llm_endpoint(host, site)
    if isinstance(called, LlmEndpoint):
        yield from _uncertified_name(called)
    else:
        yield Problem(*called)
    yield from _unfit_key(host, called if isinstance(called, LlmEndpoint) else None)


def _uncertified_name(called: LlmEndpoint) -> Iterator[Problem]:
    gateway = called.host.settings.gateway
    # Without declared names the certificate has the host's own names, known only on the host.
    own = (called.host.name.lower(), called.host.settings.network.hostname)
    names = gateway.names or own
    if gateway.tls == "ca" and called.name not in names:
        what = f"is not a name in the certificate of {called.host.name}"
        yield Problem("app_server_llm_name", what, "add it to that host's gateway_names")


def _unfit_key(host: SiteHost, called: LlmEndpoint | None) -> Iterator[Problem]:
    reference = host.settings.app_server.api_key
    if reference is None:
        what = "is missing, so the host's programs could not call the LLM server"
        yield Problem("app_server_api_key", what, "write env:NAME or file:PATH")
        return
    try:
        key = read_secret(reference)
    except ValueError as error:
        yield Problem("app_server_api_key", str(error))
        return
    if mistake := unfit(key) or (_not_admitted(key, called) if called else ""):
        yield Problem("app_server_api_key", mistake)


def _not_admitted(key: str, called: LlmEndpoint) -> str:
    """Why the gateway would refuse the key; empty if it would not."""
    for client in called.host.settings.api_clients:
        if digest(key) == client.sha256:
            if client.revoked:
                return f"refers to the key of '{client.name}', which is revoked"
            return ""
        if digest(key) == client.previous_sha256:
            return f"refers to the previous key of '{client.name}', which expires: use the new key"
    return f"refers to a key that is not in the api_clients of {called.host.name}"
