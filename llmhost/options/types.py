"""Networks as options: read leniently, refused with a sentence."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_interface
from itertools import combinations, product
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

Network = IPv4Network | IPv6Network


def _network(value: object) -> object:
    """A network from its text; a bare address is the network of that one address.

    The sentences name what was written only once it is known to be an address.
    """
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        if not isinstance(value, str):  # a number would be taken for an address
            raise ValueError
        written = ip_interface(value)
    except ValueError as error:
        raise ValueError("is not a network; write it like 10.0.0.0/8 or fd00::/8") from error
    network, address = written.network, written.ip
    if "%" in value:
        raise ValueError("names an interface behind '%'; leave it out")
    if address != network.network_address:
        raise ValueError(
            f"is an address within {network}; write {network} for the whole network,"
            f" or {address} for that one address"
        )
    return network


def _distinct(networks: Sequence[Network]) -> Sequence[Network]:
    if not networks:
        raise ValueError(
            "is empty, so nobody could come in; name networks, or 0.0.0.0/0 and ::/0 for everyone"
        )
    for one, other in combinations(networks, 2):
        if one.version == other.version and one.overlaps(other):
            wider, narrower = sorted((one, other), key=lambda network: network.prefixlen)
            if wider == narrower:
                raise ValueError(f"holds {wider} twice; keep one")
            raise ValueError(f"holds {narrower}, which {wider} covers already; keep one of them")
    return networks


Networks = Annotated[
    tuple[Annotated[Network, BeforeValidator(_network)], ...], AfterValidator(_distinct)
]
"""At least one network, none of them part of another."""

EVERYONE: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""Both halves of the Internet."""


def within(outer: Sequence[Network], inner: Iterable[Network]) -> tuple[Network, ...]:
    """What both hold, without overlaps, IPv4 first.

    Two networks never overlap in part: what two of them share is the narrower one.
    """
    shared = {
        max(one, other, key=lambda network: network.prefixlen)
        for one, other in product(outer, inner)
        if one.version == other.version and one.overlaps(other)
    }
    four = collapse_addresses(each for each in shared if isinstance(each, IPv4Network))
    six = collapse_addresses(each for each in shared if isinstance(each, IPv6Network))
    return (*four, *six)
