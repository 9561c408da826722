"""The current /etc/hosts."""

from pyinfra.api import FactBase

from llmhost.system.hosts_file import PATH


class HostsFile(FactBase[str]):
    """The text of /etc/hosts; empty if there is none."""

    @staticmethod
    def default() -> str:
        return ""

    def command(self) -> str:
        return f"cat {PATH} 2>/dev/null || true"

    def process(self, output: list[str]) -> str:
        return "".join(f"{line}\n" for line in output)
