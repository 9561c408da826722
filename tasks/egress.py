"""Egress: where the stack's containers may connect to."""

from llmhost.operations import nftables
from llmhost.operations.component import component
from llmhost.settings import Settings
from llmhost.stack.egress import RULES, TABLE, egress_files


@component("Egress")
def limit_egress(settings: Settings) -> None:
    """Reject undeclared connections of containers, or remove what does. Comes before Docker, which
    starts only if it can load the rules."""
    nftables.table(
        TABLE,
        *egress_files(settings),
        rules=RULES,
        name="Reject connections of containers that are not declared",
    )
