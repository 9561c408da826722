"""systemd units."""

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
    """Keep a unit running with the configuration on disk.

    The unit is restarted, or with `reload` only reloaded, if a path in `newer_than` (a directory
    includes everything below it) changed after the process started. That is a fact of the host, not
    of this run: if a run is killed between file and restart, the next one restarts the unit.
    `others` are units that this one starts: they must not be masked, and systemd must have loaded
    their current files. The unit is also restarted if it is active but the shell command `question`
    fails or hangs.
    """
    unit_question = _question(unit, newer_than=newer_than, others=others, question=question)
    state = get_fact(Unit, **unit_question.arguments)
    required = steps(unit, state, running=running, enabled=enabled, reload=reload)
    if required:
        explain([step.reason for step in required])
        yield StringCommand(script(unit, required))


@declared(prefetch=lambda *units: [ask(EnabledUnits, units=list(units))])
def starts_at_boot(*units: str) -> Commands:
    """Make sure that one of several alternative units starts at boot: enable the first that exists
    if none is enabled.

    For services that distributions start in different ways. Nothing is started or stopped now. If
    none of the units exists, there is nothing to do.
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
