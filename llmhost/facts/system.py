"""Identity of a host: everything that a deploy does not change."""

from pyinfra.api import FactBase

from llmhost.resources import script
from llmhost.stack.limits import Capacity
from llmhost.system.host_identity import HostIdentity, parse_identity


class HostIdentityFact(FactBase[HostIdentity | None]):
    """Distribution, hardware and free space in one round trip.

    Reports the free space of `paths` (at the nearest existing parent). If the file `receipt`
    exists, llmhost has deployed to this host before.
    """

    def command(self, paths: list[str], receipt: str) -> str:
        return script("system/identity.sh", receipt, *paths)

    def process(self, output: list[str]) -> HostIdentity:
        return parse_identity(output)


class HostTime(FactBase[float]):
    """The host's clock, in seconds since the epoch."""

    of_the_moment = True  # it is compared with the controller's

    def command(self) -> str:
        return "date +%s.%N"

    def process(self, output: list[str]) -> float:
        return float(output[0])


class HostCapacity(FactBase[Capacity]):
    """Hardware threads and memory that the system has in use."""

    @staticmethod
    def default() -> Capacity:
        return Capacity()

    def command(self) -> str:
        return r"nproc --all; sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo"

    def process(self, output: list[str]) -> Capacity:
        threads, kib = map(int, output)
        return Capacity(threads, kib * 1024)
