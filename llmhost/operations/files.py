"""Files and directories, present or absent."""

from pyinfra.api import StringCommand

from llmhost.facts.files import PathStates
from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.system.files import Entry, File, apply_script, archive, candidate_path, differences


@declared(prefetch=lambda *entries: [ask(PathStates, paths=[each.path for each in entries])])
def present(*entries: Entry) -> Commands:
    """Correct every entry that differs: one round trip to read, one to write.

    Files are replaced atomically.
    """
    found = get_fact(PathStates, paths=[each.path for each in entries])
    wrong = differences(entries, found)
    if wrong:
        explain(wrong.values())
        yield apply_command(list(wrong))


def apply_command(entries: list[Entry]) -> StringCommand:
    """The command that writes the entries; it reads their contents from stdin."""
    files = [entry for entry in entries if isinstance(entry, File)]
    contents = archive({candidate_path(file.path): file for file in files})
    return StringCommand(apply_script(entries), _stdin=contents)
