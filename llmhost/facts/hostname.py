"""A host's name."""

from dataclasses import dataclass

from pyinfra.api import FactBase


@dataclass(frozen=True)
class Names:
    """The name in /etc/hostname, and the name in the kernel."""

    at_boot: str = ""
    now: str = ""


class Hostname(FactBase[Names]):
    """Both names of a host."""

    @staticmethod
    def default() -> Names:
        return Names()

    def command(self) -> str:
        return "uname -n; cat /etc/hostname 2>/dev/null || true"

    def process(self, output: list[str]) -> Names:
        now, *at_boot = (line.strip() for line in output if line.strip())
        return Names("".join(at_boot[:1]), now)
