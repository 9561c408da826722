"""A host's static addresses: as declared, as written on disk, as the interface has them. Pure.

The state comes from facts/network.py, the commands are run by operations/network.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from llmhost.system import netplan
from llmhost.system.files import File, PathState, differences
from llmhost.template import render

STAGE = "/run/llmhost-network"
"""Where new addresses are on trial; on a tmpfs, so that a reboot ends the trial."""

BACKUP = "/var/lib/llmhost/network"
"""Files of the site's as they were before addresses were taken out of them."""

NETWORKD = "/etc/systemd/network/05-llmhost.network"
"""Of all files that match an interface, the first by name counts (systemd.network(5))."""

PATHS = (NETWORKD, netplan.PATH)

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Addressing:
    """What is declared; `interface` is empty for the one that the default route leaves by."""

    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...] = ()
    interface: str = ""


@dataclass(frozen=True)
class LiveAddress:
    """An address of an interface; `dynamic` if it came by DHCP or was made by IPv6 itself."""

    interface: str
    address: Interface
    dynamic: bool


@dataclass(frozen=True)
class NetworkState:
    """What a host shows.

    `macs` are hardware addresses by interface, `routes` pairs of interface and router of the
    default routes, `server` the host's address that the SSH connection goes to, `netplan` texts of
    netplan's files by path, `managers` the names of those who manage an interface. `paths` are
    states of `PATHS` and of netplan's files. Without `ip` no addresses and routes are known.
    """

    macs: Mapping[str, str] = field(default_factory=dict)
    addresses: Sequence[LiveAddress] = ()
    routes: Sequence[tuple[str, str]] = ()
    server: Address | None = None
    netplan: Mapping[str, str] = field(default_factory=dict)
    managers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    paths: Mapping[str, PathState] = field(default_factory=dict)
    is_wsl: bool = False
    has_ip: bool = True

    @property
    def manager(self) -> str:
        """`netplan` or `networkd`."""
        return "netplan" if self.netplan else "networkd"


def interface_of(declared: Addressing, state: NetworkState) -> str:
    """The interface that gets the addresses; empty if there is no default route to tell it."""
    return declared.interface or next((name for name, _ in state.routes), "")


def refusals(declared: Addressing, state: NetworkState) -> list[str]:
    """Why the addresses can not be set on this host; empty if they can."""
    if state.is_wsl:
        return [
            "the address of a WSL host is set by Windows: take network_addresses out, and see"
            " docs/network.md for the ways to reach it"
        ]
    name = interface_of(declared, state)
    if not name:
        return ["the host has no default route that tells its interface: set network_interface"]
    if name not in state.macs:
        known = ", ".join(sorted(each for each in state.macs if each != "lo"))
        return [f"the host has no interface {name}: set network_interface to one of {known}"]
    if state.netplan or "networkd" in state.managers.get(name, ()):
        return []
    return [_unmanaged(name, state.managers.get(name, ()))]


def _unmanaged(name: str, managers: Sequence[str]) -> str:
    advice = "set the address there, and take network_addresses out of the inventory"
    if "ifupdown" in managers:
        return (
            f"{name} is configured by ifupdown, in /etc/network/interfaces: {advice}; or move the"
            " host to systemd-networkd (see docs/network.md)"
        )
    if "NetworkManager" in managers:
        return f"{name} is configured by NetworkManager: {advice}, with nmcli connection modify"
    return (
        f"neither netplan nor systemd-networkd manages {name}: move it to systemd-networkd (see"
        " docs/network.md), or take network_addresses out of the inventory"
    )


def files(declared: Addressing, state: NetworkState) -> list[File]:
    """The files that hold the addresses, and the site's own that must not hold others."""
    name = interface_of(declared, state)
    has_ipv6 = any(address.version == 6 for address in declared.addresses)
    if state.manager == "networkd":
        values = {"interface": name, "addresses": declared.addresses, "has_ipv6": has_ipv6}
        text = render("network/05-llmhost.network.j2", gateways=declared.gateways, **values)
        return [File(NETWORKD, text)]
    found = netplan.find(state.netplan, name, state.macs.get(name, ""))
    content = netplan.definition(found, declared.addresses, declared.gateways)
    ours = File(netplan.PATH, render("network/99-llmhost.yaml.j2", content=content), mode="0600")
    trimmed = netplan.trimmed(state.netplan, found)
    return [ours, *(File(path, text, mode="0600") for path, text in trimmed.items())]


def drift(declared: Addressing, wanted: Sequence[File], state: NetworkState) -> list[str]:
    """Why the addresses are not as declared, in sentences; empty if they are."""
    name = interface_of(declared, state)
    live = [each for each in state.addresses if each.interface == name]
    told = [f"{name} lacks {a}" for a in declared.addresses if a not in {e.address for e in live}]
    told += [
        f"the default route does not lead to {gateway} by {name}"
        for gateway in declared.gateways
        if (name, str(gateway)) not in state.routes
    ]
    told += [
        f"{name} has {each.address} by DHCP, which is not declared"
        for each in live
        if each.dynamic and each.address.version == 4 and each.address not in declared.addresses
    ]
    ours = [file for file in wanted if file.path in PATHS]
    told += differences(ours, state.paths).values()
    return told + [f"{f.path} gives {name} addresses of its own" for f in wanted if f not in ours]


def contacts(declared: Addressing, state: NetworkState) -> tuple[str, ...]:
    """Addresses that the host is reached at after the change; none if the one in use stays.

    Where there is one of the same IP version it has to be that: a wrong IPv4 address must not pass
    because IPv6 goes on.
    """
    name = interface_of(declared, state)
    wanted = [address.ip for address in declared.addresses]
    on_it = {each.address.ip for each in state.addresses if each.interface == name}
    if state.server is None or state.server in wanted or state.server not in on_it:
        return ()
    alike = [each for each in wanted if each.version == state.server.version]
    return tuple(map(str, alike or wanted))


def moving(declared: Addressing, state: NetworkState) -> list[str]:
    """What the operator is told where the address in use goes away."""
    if not (places := contacts(declared, state)):
        return []
    return [
        f"connections to {state.server} end; the deploy goes on at {places[0]}, which is to be the"
        " host's ssh_hostname from then on"
    ]
