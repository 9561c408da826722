"""What kind of host this is: everything that no deploy of ours changes."""

from pyinfra.api import FactBase

from llmhost.resources import script
from llmhost.system.host_identity import HostIdentity, parse_identity


class HostIdentityFact(FactBase[HostIdentity | None]):
    """Distribution, hardware, clock and free space in one round trip.

    `paths` are those whose free space matters (of the nearest parent that exists); `receipt` is
    the file whose presence tells that llmhost has deployed this host before.
    """

    of_the_moment = True  # its clock is compared with the controller's: never read ahead

    def command(self, paths: list[str], receipt: str) -> str:
        return script("system/identity.sh", receipt, *paths)

    def process(self, output: list[str]) -> HostIdentity:
        return parse_identity(output)
