"""Tables of nftables."""

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.resources import script
from llmhost.system.nftables import TableState, parse_table


class NftTable(FactBase[TableState]):
    """How a loaded table of the family `inet` differs from the file on the host that declares it,
    and the state of paths.

    Source: `nft list table`, on the host and in a network namespace into which the file was loaded.
    """

    @staticmethod
    def default() -> TableState:
        return TableState()

    def command(self, table: str, file: str, paths: list[str]) -> str:
        states = PathStates().command(paths)
        return f"PATH=$PATH:/usr/sbin:/sbin; {states}; {script('firewall/table.sh', file, table)}"

    def process(self, output: list[str]) -> TableState:
        paths = parse_states([line for line in output if not line.startswith("table ")])
        return parse_table(output, paths)
