"""Tables of nftables."""

import shlex

from pyinfra.api import StringCommand

from llmhost.facts.nftables import NftTable
from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.operations.files import apply_command
from llmhost.system.files import Entry
from llmhost.system.nftables import plan


def _question(table: str, *entries: Entry, rules: str) -> Question:
    return ask(NftTable, table=table, file=rules, paths=[each.path for each in entries])


@declared(prefetch=lambda table, *entries, rules: [_question(table, *entries, rules=rules)])
def table(table: str, *entries: Entry, rules: str) -> Commands:
    """Keep a table of the family `inet` loaded as its file declares it, or remove it.

    `entries` are its file, whose path is `rules`, and files of units that load it at boot. If
    `rules` must not exist, neither may the table. The file replaces the table in one transaction:
    at no moment is a rule missing.
    """
    found = get_fact(NftTable, **_question(table, *entries, rules=rules).arguments)
    todo = plan(table, entries, rules, found)
    if not todo.reasons:
        return
    explain(todo.reasons)
    if todo.entries:
        yield apply_command([*todo.entries])
    if todo.wanted:
        yield StringCommand(f"/usr/sbin/nft -f {shlex.quote(rules)}")
    elif found.loaded:
        yield StringCommand(f"/usr/sbin/nft delete table inet {shlex.quote(table)}")
