"""A host's name."""

from pyinfra.api import StringCommand

from llmhost.facts.hostname import Hostname
from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.operations.files import apply_command
from llmhost.system.files import File

_PATH = "/etc/hostname"


@declared(prefetch=lambda *_, **__: [ask(Hostname)])
def present(wanted: str) -> Commands:
    """Set the host's name, now and at boot."""
    found = get_fact(Hostname)
    wrong = [
        f"the hostname {when} is {name or 'empty'}, but {wanted} is declared"
        for name, when in ((found.at_boot, "at boot"), (found.now, "now"))
        if name != wanted
    ]
    if wrong:
        explain(wrong)
        yield apply_command([File(_PATH, f"{wanted}\n")])
        yield StringCommand("hostname", wanted)
