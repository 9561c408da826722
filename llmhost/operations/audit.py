"""Changes of files that auditd records."""

from pyinfra.api import StringCommand

from llmhost.facts.audit import Audit
from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.operations.files import apply_command
from llmhost.system import apt
from llmhost.system.audit import render, rules_path
from llmhost.system.files import Absent, Entry, File, differences

_LOAD = "augenrules --load >/dev/null"
_RUN = "systemctl enable --quiet --now auditd.service"


@declared(prefetch=lambda *paths, component: [ask(Audit, component=component, paths=list(paths))])
def watched(*paths: str, component: str) -> Commands:
    """Record changes of these paths, as far as they exist, with auditd; without paths, none.

    Nothing is done in a container: the kernel's audit belongs to its host. auditd is installed if
    it is needed, and never removed.
    """
    found = get_fact(Audit, component=component, paths=list(paths))
    if not found.available:
        return
    existing = [path for path in paths if path in found.existing]
    place = rules_path(component)
    rules: Entry = File(place, render(existing, component), "0640") if paths else Absent(place)
    wrong = differences([rules], found.paths)
    unloaded = found.loaded != set(existing)
    stopped = bool(paths) and not (found.installed and found.running)
    if not (wrong or unloaded or stopped):
        return
    explain(
        [
            *wrong.values(),
            *(["auditd is not running"] if stopped else []),
            *(
                ["the audit rules in the kernel are not the declared ones"]
                if unloaded and not wrong
                else []
            ),
        ]
    )
    if paths and not found.installed:
        yield StringCommand(apt.script(apt.AptPlan(install=("auditd",))))
    if stopped:
        yield StringCommand(_RUN)
    if wrong:
        yield apply_command([*wrong])
    yield StringCommand(_LOAD)
