"""The hosts of an inventory together. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from llmhost.inventory.role import GATEWAYS, Role, role_of
from llmhost.options.upstream import UpstreamServer
from llmhost.settings import Settings

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class SiteHost:
    """One host: its groups in the inventory, its SSH address `contact`, and its inventory `data`,
    including pyinfra's keys."""

    name: str
    settings: Settings
    groups: frozenset[str] = field(default_factory=frozenset)
    contact: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def role(self) -> Role:
        return role_of(self.settings, self.groups)

    @property
    def address(self) -> Address | None:
        """Its address, if the inventory has it."""
        if self.settings.network.addresses:
            return self.settings.network.addresses[0].ip
        try:
            return ip_address(self.contact)
        except ValueError:
            return None

    @cached_property
    def addresses(self) -> frozenset[Address]:
        """All its addresses that the inventory has, also that of its engine group."""
        declared = (each.ip for each in self.settings.network.addresses)
        own = (self.address, self.settings.engine_group.members.get(self.name))
        return frozenset(each for each in (*declared, *own) if each)


Site = Mapping[str, SiteHost]
"""Hosts by name."""


def servers_of(server: UpstreamServer, site: Site) -> list[SiteHost]:
    """The hosts that a gateway's server is: by its name, or else by address and port."""
    if server.name in site:
        return [site[server.name]]
    # Names of servers have no capitals, unlike those of hosts.
    named = [each for each in site.values() if each.name.lower() == server.name]
    return named or hosts_at(server, site)


def hosts_at(server: UpstreamServer, site: Site) -> list[SiteHost]:
    """The hosts whose gateway has the address and port of this server."""
    return [
        each
        for each in site.values()
        if server.address in each.addresses and server.port == each.settings.gateway.port
    ]


@dataclass(frozen=True)
class LlmEndpoint:
    """The gateway that an application server calls, by its name and address."""

    host: SiteHost
    name: str
    address: Address

    @property
    def url(self) -> str:
        """URL of the gateway; no slash at the end."""
        return self.host.settings.gateway.url(self.name)


def llm_endpoint(app: SiteHost, site: Site) -> LlmEndpoint | tuple[str, str, str]:
    """The gateway that `app` calls, or a mistake: option, what is wrong, fix."""
    options = app.settings.app_server
    host = _llm_host(app, site)
    if not isinstance(host, SiteHost):
        return ("app_server_llm_host", *host)
    address = options.llm_address or host.address
    if address is None:
        what = f"is missing, and the inventory has no address of {host.name}"
        return "app_server_llm_address", what, "write its address on the LAN"
    return LlmEndpoint(host, options.llm_name, address)


def _llm_host(app: SiteHost, site: Site) -> SiteHost | tuple[str, str]:
    named = app.settings.app_server.llm_host
    if named:
        found = site.get(named)
        if found is None or found.role is Role.APP_SERVER:
            return (
                "is not an LLM server of this inventory",
                f"write one of: {_names(_callable(site))}",
            )
        if head := found.settings.only_computes_for:
            return f"only computes for {head}, which answers requests", f"write {head}"
        return found
    hosts = _callable(site)
    if len(hosts) == 1:
        return next(iter(hosts.values()))
    if not hosts:
        return (
            "is missing, and the inventory has no valid LLM server",
            "add one, and fix its options",
        )
    return "is missing, and there are several hosts to call", f"write one of: {_names(hosts)}"


def _callable(site: Site) -> Site:
    gateways = {name: host for name, host in site.items() if GATEWAYS in host.groups}
    others = {name: host for name, host in site.items() if _answers(host)}
    return gateways or others


def _answers(host: SiteHost) -> bool:
    return host.role is not Role.APP_SERVER and not host.settings.only_computes_for


def _names(site: Site) -> str:
    return ", ".join(sorted(site)) or "(none)"


def head_of(server: str, hosts: Iterable[Mapping[str, Any]]) -> str:
    """The server that answers for this one, by the data of the hosts of an inventory: the head of
    its engine group, or itself."""
    return group_of(server, hosts)[0]


def group_of(server: str, hosts: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The members of a server's engine group, the head first; without one, the server alone. By the
    data of the hosts of an inventory."""
    for data in hosts:
        members, head = data.get("engine_group_members"), data.get("engine_group_head")
        if isinstance(members, Mapping) and server in members and isinstance(head, str):
            return head, *sorted(str(name) for name in members if name != head)
    return (server,)
