"""Files, directories and absences."""

from pyinfra import host
from pyinfra.api import StringCommand

from llmhost.facts.files import PathStates
from llmhost.operations.changes import Commands, declared, explain
from llmhost.system.files import Entry, File, apply_script, archive, candidate_path, differences


@declared
def present(*entries: Entry) -> Commands:
    """Make every entry as declared: one round trip to look, one to correct.

    A file is complete in its place or not there at all, never half-written.
    """
    found = host.get_fact(PathStates, paths=[entry.path for entry in entries])
    wrong = differences(entries, found)
    if wrong:
        explain(wrong.values())
        yield apply_command(list(wrong))


def apply_command(entries: list[Entry]) -> StringCommand:
    """The command that brings entries about; contents travel on its stdin."""
    files = [entry for entry in entries if isinstance(entry, File)]
    contents = archive({candidate_path(file.path): file for file in files})
    return StringCommand(apply_script(entries), _stdin=contents)
