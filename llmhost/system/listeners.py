"""TCP ports that a host's programs listen on, compared with those that llmhost needs. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Listener:
    """A program that listens on an address and a port; `program` is the name of its process, empty
    if the host does not say."""

    port: int
    address: Address
    program: str


@dataclass(frozen=True)
class Needed:
    """A port that one of `programs` will listen on, at these addresses; `option` declares it."""

    option: str
    port: int
    addresses: tuple[Address, ...]
    programs: tuple[str, ...]


def taken(needed: Iterable[Needed], listeners: Iterable[Listener]) -> Iterator[str]:
    """Why a host is refused whose ports other programs use. Listeners without a name do not count:
    the program may have ended while the host was asked, as one of ours does in a restart."""
    found = [*listeners]
    for each in needed:
        others = {
            listener.program
            for listener in found
            if listener.program
            and listener.port == each.port
            and listener.program not in each.programs
            and any(_meets(listener.address, address) for address in each.addresses)
        }
        for program in sorted(others):
            yield (
                f"port {each.port}/tcp ({each.option}) is in use by {program}; stop it and keep it"
                f" from starting at boot, or set another {each.option}"
            )


def _meets(one: Address, other: Address) -> bool:
    """Whether two programs cannot listen at both addresses. `::` includes IPv4 by default."""
    if one.is_unspecified and other.is_unspecified:
        return True
    if one.is_unspecified or other.is_unspecified:
        wide, narrow = (one, other) if one.is_unspecified else (other, one)
        return wide.version == 6 or narrow.version == 4
    return one == other


def parse_listener(line: str) -> Listener:
    """`PORT ADDRESS PROGRAM`; the address as in /proc/net/tcp: words of 32 bits in the order of the
    processor, which is little-endian on both architectures."""
    port, text, program = (*line.split(" ", 2), "")[:3]
    words = [bytes.fromhex(text[place : place + 8])[::-1] for place in range(0, len(text), 8)]
    address = ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return Listener(int(port), mapped or address, program.strip())
