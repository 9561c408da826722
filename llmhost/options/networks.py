"""Networks as options."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_interface
from itertools import combinations, product

from llmhost.options.kind import ADDRESS, Kind, Mistake

IpNetwork = IPv4Network | IPv6Network

EVERYONE: tuple[IpNetwork, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""All IPv4 and IPv6 addresses."""


def _network(value: object) -> IpNetwork:
    """A network from its text; an address without a prefix length is a network of one address."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):  # ip_interface would accept a number
        raise TypeError
    written = ip_interface(value)
    network, address = written.network, written.ip
    if "%" in value:
        raise Mistake("names an interface after '%'; leave it out, as in 'fd00::/8'")
    if address != network.network_address:
        raise Mistake(
            f"is an address within {network}; write {network} for the whole network,"
            f" or {address} for that one address"
        )
    return network


NETWORK = Kind(_network, "a network in CIDR notation", "10.0.0.0/8", ADDRESS)


def overlap(one: IpNetwork, other: IpNetwork) -> bool:
    """Whether two networks have addresses in common."""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def disjoint(networks: Sequence[IpNetwork]) -> None:
    """Refuse networks that overlap."""
    for one, other in combinations(networks, 2):
        if overlap(one, other):
            wider, narrower = sorted((one, other), key=lambda network: network.prefixlen)
            if wider == narrower:
                raise Mistake(f"holds {wider} twice; keep one")
            raise Mistake(f"holds {narrower}, which {wider} covers already; keep one of them")


def within(outer: Sequence[IpNetwork], inner: Iterable[IpNetwork]) -> tuple[IpNetwork, ...]:
    """The intersection, without overlaps, IPv4 first.

    Two networks never overlap in part: their intersection is the narrower one.
    """
    shared = {
        max(one, other, key=lambda network: network.prefixlen)
        for one, other in product(outer, inner)
        if overlap(one, other)
    }
    four = collapse_addresses(each for each in shared if isinstance(each, IPv4Network))
    six = collapse_addresses(each for each in shared if isinstance(each, IPv6Network))
    return (*four, *six)


def with_network(networks: Sequence[IpNetwork], more: IpNetwork) -> tuple[IpNetwork, ...]:
    """The networks and one more, without overlaps."""
    if any(overlap(each, more) and each.prefixlen <= more.prefixlen for each in networks):
        return (*networks,)
    return (*(each for each in networks if not overlap(each, more)), more)
