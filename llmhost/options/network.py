"""`network_*`: the host's own name and address."""

from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from itertools import combinations
from typing import Annotated, Self

from pydantic import Field, model_validator

from llmhost.options.base import Section
from llmhost.options.kind import ADDRESS, Kind, Listed, Mistake
from llmhost.options.networks import overlap
from llmhost.options.types import (
    Address,
    ConfirmSeconds,
    HostLabel,
    HostName,
    InterfaceName,
    Items,
    NameServer,
    Table,
)

IpInterface = IPv4Interface | IPv6Interface


def _interface(value: object) -> IpInterface:
    """An address that a host can have, from its text."""
    if not isinstance(value, IPv4Interface | IPv6Interface):
        if not isinstance(value, str):
            raise TypeError
        interface = ip_interface(value)
        if "/" not in value:
            raise Mistake(f"has no prefix length; write it like '{value}/24'")
        return _of_a_host(interface)
    return _of_a_host(value)


def _of_a_host(interface: IpInterface) -> IpInterface:
    address, network = interface.ip, interface.network
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        raise Mistake(f"holds {address}, which no host can have on a network; give the host's own")
    if address.is_link_local:
        raise Mistake(
            f"holds {address}, which is valid on one link only and assigned by the host itself;"
            " give an address of the site's network"
        )
    if network.num_addresses > 2 and address == network.network_address:
        raise Mistake(f"holds {interface}, the address of the network itself; give the host's")
    if network.num_addresses > 2 and address == network.broadcast_address and address.version == 4:
        raise Mistake(f"holds {interface}, the network's broadcast address; give the host's")
    return interface


def _distinct(interfaces: Iterable[IpInterface]) -> None:
    for one, other in combinations(interfaces, 2):
        if one.ip == other.ip:
            raise Mistake(f"holds {one.ip} twice; keep one")
        if one.network != other.network and overlap(one.network, other.network):
            raise Mistake(
                f"holds {one} and {other}, whose networks overlap; give both the same prefix length"
            )


HostInterface = Annotated[
    IpInterface,
    Kind(_interface, "an address with its prefix length", "192.168.0.100/24", ADDRESS),
]


class HostNetwork(Section):
    """The host's name and addresses. What is not declared does not change.

    Addresses are set by netplan or systemd-networkd, whichever the host uses. A change is reverted
    unless the controller reconnects through the new addresses.
    """

    hostname: HostLabel | None = None
    """Host name, without a domain."""

    hosts: Table[HostName, Address] = Field(default_factory=dict)
    """Names and addresses to add to the hosts file."""

    interface: InterfaceName | None = None
    """Interface for the addresses; none: the interface of the default route."""

    addresses: Annotated[tuple[HostInterface, ...], Listed(repeats=True, check=_distinct)] = ()
    """Static addresses with prefix lengths, such as `192.168.0.100/24` and `fd00::100/64`. They
    replace all other addresses of the interface, including those from DHCP."""

    gateways: Items[Address] = ()
    """Default routers: at most one for IPv4 and one for IPv6."""

    dns: Items[NameServer] | None = None
    """Name servers; required with static addresses, because DHCP then provides none. `[]`: no name
    servers."""

    search_domains: Items[HostName] = ()
    """Search domains for short names."""

    confirm_seconds: ConfirmSeconds = 60
    """A change of addresses is reverted unless the controller reconnects within this time."""

    @model_validator(mode="after")
    def _addresses_fit(self) -> Self:
        if self.gateways and not self.addresses:
            raise Mistake("require network_addresses; declare both", "gateways")
        if self.addresses and self.dns is None:
            raise Mistake(
                "is missing, and a host with static addresses gets no name servers from DHCP; list"
                " them, or write [] for none",
                "dns",
            )
        if self.search_domains and not self.dns:
            raise Mistake("only work with dns; declare both", "search_domains")
        for sentence in _unfit_gateways(self):
            raise Mistake(sentence, "gateways")
        return self


def _unfit_gateways(network: HostNetwork) -> Iterable[str]:
    versions = [gateway.version for gateway in network.gateways]
    for version in {version for version in versions if versions.count(version) > 1}:
        yield f"has more than one IPv{version} gateway; keep one"
    for gateway in network.gateways:
        if any(gateway == address.ip for address in network.addresses):
            yield f"holds {gateway}, which is the host's own address; give the router's"
        elif not gateway.is_link_local and not any(
            gateway in address.network for address in network.addresses
        ):
            yield f"holds {gateway}, which is in no network of addresses; give a router of one"
