"""TCP connections from a host to another one."""

from ipaddress import ip_address

from pyinfra.api import FactBase


class Connections(FactBase[int]):
    """How many TCP connections to this address and port are open, as ss(8) lists them."""

    @staticmethod
    def default() -> int:
        return 0

    def command(self, address: str, port: int) -> str:
        place = ip_address(address)
        there = f"[{place}]" if place.version == 6 else str(place)
        return f"ss -Htn state established dst '{there}:{port:d}' | wc -l"

    def process(self, output: list[str]) -> int:
        return int(output[0])
