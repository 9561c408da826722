"""/etc/hosts."""

from collections.abc import Mapping

from pyinfra import host

from llmhost.facts.hosts_file import HostsFile
from llmhost.operations.changes import Commands, declared, explain, refuse
from llmhost.operations.files import apply_command
from llmhost.system import hosts_file
from llmhost.system.files import File


@declared
def entries(entries: Mapping[str, str], *, component: str) -> Commands:
    """Give names (keys) their addresses, in a block of the component; every other line stays."""
    text = host.get_fact(HostsFile)
    if wrong := hosts_file.conflicts(text, entries, component):
        yield refuse(wrong)
    elif reasons := hosts_file.reasons(text, entries, component):
        explain(reasons)
        wanted = hosts_file.with_entries(text, entries, component)
        yield apply_command([File(hosts_file.PATH, wanted)])
