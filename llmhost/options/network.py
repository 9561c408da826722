"""`network_*`: the host's own name and address."""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_interface,
)
from itertools import combinations
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from llmhost.options.base import Section
from llmhost.options.gateway import Name, overlap

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address


def _interface(value: object) -> object:
    """An address with its prefix length, from its text."""
    if isinstance(value, IPv4Interface | IPv6Interface):
        return value
    if not isinstance(value, str) or "/" not in value:
        raise ValueError("has no prefix length; write it like 192.168.0.100/24 or fd00::100/64")
    try:
        return ip_interface(value)
    except ValueError:
        raise ValueError("is no address; write it like 192.168.0.100/24 or fd00::100/64") from None


def _of_a_host(interface: Interface) -> Interface:
    """An address that a host may have as its own."""
    address, network = interface.ip, interface.network
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        raise ValueError(f"holds {address}, which no host can have on a network")
    if address.is_link_local:
        raise ValueError(f"holds {address}, which is valid on one link only and made by the host")
    if network.num_addresses > 2 and address == network.network_address:
        raise ValueError(f"holds {interface}, the address of the network itself; give the host's")
    if network.num_addresses > 2 and address == network.broadcast_address and address.version == 4:
        raise ValueError(f"holds {interface}, the network's broadcast address; give the host's")
    return interface


HostInterface = Annotated[Interface, BeforeValidator(_interface), AfterValidator(_of_a_host)]


class HostNetwork(Section):
    """What the host is called and where it is reached. What is not declared stays as it is.

    Addresses are set by netplan or systemd-networkd, whichever the host uses. A change of addresses
    undoes itself unless the controller comes in again through them.
    """

    hostname: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    """Name that the host calls itself by, without a domain."""

    hosts: dict[Name, Address] = Field(default_factory=dict)
    """Further names and their addresses, for the hosts file."""

    interface: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")
    """Interface that gets the addresses; none: the one that the default route leaves by."""

    addresses: tuple[HostInterface, ...] = ()
    """Static addresses with prefix lengths, such as `192.168.0.100/24` and `fd00::100/64`, in the
    place of all others of the interface, those from DHCP included."""

    gateways: tuple[Address, ...] = ()
    """Routers of the default routes: one for IPv4 and one for IPv6, at most."""

    dns: tuple[Address, ...] | None = None
    """Name servers. Declare them with static addresses: DHCP does not tell them then; `[]` for a
    network without any."""

    search_domains: tuple[Name, ...] = ()
    """Domains that short names are looked up in."""

    confirm_seconds: int = Field(default=60, ge=10, le=600)
    """A change of addresses undoes itself unless the controller can reconnect within this time."""

    @model_validator(mode="after")
    def _addresses_fit(self) -> Self:
        if self.gateways and not self.addresses:
            raise ValueError("gateways only work with addresses: declare both")
        if self.addresses and self.dns is None:
            raise ValueError(
                "dns is missing: nobody tells name servers to a host with static addresses; list"
                " them, or write [] for none"
            )
        if self.search_domains and not self.dns:
            raise ValueError("search_domains only work with dns: declare both")
        for sentence in (*_clashes(self.addresses), *_unfit_gateways(self)):
            raise ValueError(sentence)
        return self


def _clashes(addresses: Iterable[Interface]) -> Iterable[str]:
    for one, other in combinations(addresses, 2):
        if one.ip == other.ip:
            yield f"addresses holds {one.ip} twice; keep one"
        elif one.network != other.network and overlap(one.network, other.network):
            yield f"addresses holds {one} and {other}, whose networks overlap; give both one prefix"


def _unfit_gateways(network: HostNetwork) -> Iterable[str]:
    versions = [gateway.version for gateway in network.gateways]
    for version in {version for version in versions if versions.count(version) > 1}:
        yield f"gateways holds more than one for IPv{version}; keep one"
    for gateway in network.gateways:
        if any(gateway == address.ip for address in network.addresses):
            yield f"gateways holds {gateway}, which is the host's own address"
        elif not gateway.is_link_local and not any(
            gateway in address.network for address in network.addresses
        ):
            yield f"gateways holds {gateway}, which is in no network of addresses"
