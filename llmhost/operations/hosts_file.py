"""/etc/hosts."""

from collections.abc import Mapping

from llmhost.facts.hosts_file import HostsFile
from llmhost.operations.changes import explain, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.operations.files import apply_command
from llmhost.system import hosts_file
from llmhost.system.files import File


@declared(prefetch=lambda *_, **__: [ask(HostsFile)])
def entries(entries: Mapping[str, str], *, component: str) -> Commands:
    """Map names (keys) to addresses, in a block for the component; all other lines stay."""
    text = get_fact(HostsFile)
    if wrong := hosts_file.conflicts(text, entries, component):
        yield refuse(wrong)
    elif reasons := hosts_file.reasons(text, entries, component):
        explain(reasons)
        wanted = hosts_file.with_entries(text, entries, component)
        yield apply_command([File(hosts_file.PATH, wanted)])
