"""Units of systemd."""

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from llmhost.facts.systemd import Unit
from llmhost.operations.changes import Commands, explain
from llmhost.systemd import script, steps


@operation()
def service(
    unit: str,
    *,
    running: bool = True,
    enabled: bool = True,
    newer_than: Sequence[str] = (),
    reload: bool = False,
) -> Commands:
    """Keep a unit running the configuration that is on disk.

    It is restarted, or with `reload` only reloaded, when a path of `newer_than` (a directory
    counts with all below it) was changed after the process started. That is a fact of the host,
    not of this run: a run that was killed between file and restart is healed by the next.
    """
    state = host.get_fact(Unit, unit=unit, configuration=list(newer_than))
    todo = steps(unit, state, running=running, enabled=enabled, reload=reload)
    if todo:
        explain([step.reason for step in todo])
        yield StringCommand(script(unit, state, todo))
