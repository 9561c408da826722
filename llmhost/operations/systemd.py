"""Units of systemd."""

from collections.abc import Sequence

from pyinfra.api import QuoteString, StringCommand

from llmhost.facts.systemd import EnabledUnits, Unit
from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.system.systemd import script, steps


def _question(
    unit: str,
    *,
    newer_than: Sequence[str] = (),
    others: Sequence[str] = (),
    question: str = "",
    **_: bool,
) -> Question:
    configuration = list(newer_than)
    return ask(Unit, unit=unit, configuration=configuration, others=list(others), question=question)


@declared(prefetch=lambda unit, **more: [_question(unit, **more)])
def service(
    unit: str,
    *,
    running: bool = True,
    enabled: bool = True,
    newer_than: Sequence[str] = (),
    reload: bool = False,
    others: Sequence[str] = (),
    question: str = "",
) -> Commands:
    """Keep a unit running the configuration that is on disk.

    It is restarted, or with `reload` only reloaded, when a path of `newer_than` (a directory
    counts with all below it) was changed after the process started. That is a fact of the host,
    not of this run: a run that was killed between file and restart is healed by the next. `others`
    are units that this one starts, which must not be masked and whose files systemd has to have
    read anew as well. It is restarted too when it is active and the shell command `question` fails,
    or hangs.
    """
    asked = _question(unit, newer_than=newer_than, others=others, question=question)
    state = get_fact(Unit, **asked.arguments)
    todo = steps(unit, state, running=running, enabled=enabled, reload=reload)
    if todo:
        explain([step.reason for step in todo])
        yield StringCommand(script(unit, todo))


@declared(prefetch=lambda *units: [ask(EnabledUnits, units=list(units))])
def starts_at_boot(*units: str) -> Commands:
    """Let at least one of several alternatives start at boot; the first that exists if none does.

    For what the distributions start in different ways. Nothing is started or stopped now, and
    where none of the units exists there is nothing to do.
    """
    states = get_fact(EnabledUnits, units=list(units))
    existing = [unit for unit in units if unit in states]
    if existing and "enabled" not in states.values():
        unit = existing[0]
        masked = states[unit].startswith("masked")
        explain([f"{unit} is masked"] if masked else [f"{unit} does not start at boot"])
        if masked:
            runtime = ["--runtime"] if states[unit] == "masked-runtime" else []
            yield StringCommand("systemctl", "unmask", *runtime, QuoteString(unit))
        yield StringCommand("systemctl", "enable", "--quiet", QuoteString(unit))
