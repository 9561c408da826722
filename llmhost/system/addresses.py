"""A host's static addresses: declared, on disk and on the interface. Pure.

The state comes from facts/network.py, the commands are run by operations/network.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from llmhost.system import netplan
from llmhost.system.files import File, PathState, differences
from llmhost.template import render

STAGE = "/run/llmhost-network"
"""Directory of new addresses during their trial; on a tmpfs, so that a reboot ends the trial."""

BACKUP = "/var/lib/llmhost/network"
"""Copies of the site's files before addresses were removed from them."""

NETWORKD = "/etc/systemd/network/05-llmhost.network"
"""systemd uses the first file, by name, that matches an interface (systemd.network(5))."""

PATHS = (NETWORKD, netplan.PATH)

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Addressing:
    """Declared addresses; an empty `interface` means the interface of the default route."""

    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...] = ()
    interface: str = ""


@dataclass(frozen=True)
class LiveAddress:
    """An address of an interface; `dynamic` if it is from DHCP or IPv6 autoconfiguration."""

    interface: str
    address: Interface
    dynamic: bool


@dataclass(frozen=True)
class NetworkState:
    """The network of a host.

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
    """The interface for the addresses; empty if it is not declared and there is no default
    route."""
    return declared.interface or next((name for name, _ in state.routes), "")


def refusals(declared: Addressing, state: NetworkState) -> list[str]:
    """Why the addresses cannot be set on this host; empty if they can."""
    if state.is_wsl:
        return [
            "Windows sets the address of a WSL host: remove network_addresses from the inventory,"
            " and see llmhost docs network for ways to reach the host"
        ]
    name = interface_of(declared, state)
    if not name:
        return ["the host has no default route to choose an interface by: set network_interface"]
    if name not in state.macs:
        known = ", ".join(sorted(each for each in state.macs if each != "lo"))
        return [f"the host has no interface {name}: set network_interface to one of {known}"]
    if state.netplan or "networkd" in state.managers.get(name, ()):
        return []
    return [_unmanaged(name, state.managers.get(name, ()))]


def _unmanaged(name: str, managers: Sequence[str]) -> str:
    advice = "set the address there, and remove network_addresses from the inventory"
    if "ifupdown" in managers:
        return (
            f"{name} is configured by ifupdown, in /etc/network/interfaces: {advice}; or move the"
            " host to systemd-networkd (see llmhost docs network)"
        )
    if "NetworkManager" in managers:
        return f"{name} is configured by NetworkManager: {advice}, with nmcli connection modify"
    return (
        f"neither netplan nor systemd-networkd manages {name}: move it to systemd-networkd (see"
        " llmhost docs network), or remove network_addresses from the inventory"
    )


def files(declared: Addressing, state: NetworkState) -> list[File]:
    """The files with the addresses, and the site's files without the addresses that they had."""
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
    sentences = [
        f"{name} lacks {a}" for a in declared.addresses if a not in {e.address for e in live}
    ]
    sentences += [
        f"{name} has no default route through {gateway}"
        for gateway in declared.gateways
        if (name, str(gateway)) not in state.routes
    ]
    sentences += [
        f"{name} has the undeclared address {each.address} from DHCP"
        for each in live
        if each.dynamic and each.address.version == 4 and each.address not in declared.addresses
    ]
    ours = [file for file in wanted if file.path in PATHS]
    sentences += differences(ours, state.paths).values()
    return sentences + [
        f"{f.path} also configures addresses of {name}" for f in wanted if f not in ours
    ]


def contacts(declared: Addressing, state: NetworkState) -> tuple[str, ...]:
    """Addresses of the host after the change; none if the address in use stays.

    They have the IP version of the address in use, if possible: a wrong IPv4 address must not pass
    because IPv6 still works.
    """
    name = interface_of(declared, state)
    wanted = [address.ip for address in declared.addresses]
    on_it = {each.address.ip for each in state.addresses if each.interface == name}
    if state.server is None or state.server in wanted or state.server not in on_it:
        return ()
    alike = [each for each in wanted if each.version == state.server.version]
    return tuple(map(str, alike or wanted))


def moving(declared: Addressing, state: NetworkState) -> list[str]:
    """Notice for the operator that the address in use will change."""
    if not (places := contacts(declared, state)):
        return []
    return [
        f"connections to {state.server} will end; the deploy continues at {places[0]}: set the"
        " host's ssh_hostname to it"
    ]
