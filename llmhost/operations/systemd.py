"""systemd units."""

import shlex
from collections.abc import Sequence
from typing import Literal

from pyinfra.api import QuoteString, StringCommand

from llmhost.facts.systemd import EnabledUnits, UnitOverrides, UnitQuestion, Units
from llmhost.operations.changes import explain, note, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.system.overrides import KEPT, Override
from llmhost.system.systemd import UnitState, script, steps


def _question(
    unit: str,
    *,
    newer_than: Sequence[str] = (),
    others: Sequence[str] = (),
    question: str = "",
    **_: object,
) -> UnitQuestion:
    return UnitQuestion(unit, tuple(newer_than), tuple(others), question)


def _asked(question: UnitQuestion) -> Question:
    return ask(Units, questions=[question])


def _state(question: UnitQuestion) -> UnitState:
    return get_fact(Units, questions=[question]).get(question.key, UnitState())


@declared(prefetch=lambda unit, **more: [_asked(_question(unit, **more))])
def service(
    unit: str,
    *,
    running: bool = True,
    enabled: bool = True,
    newer_than: Sequence[str] = (),
    reload: bool = False,
    others: Sequence[str] = (),
    question: str = "",
    afterwards: str = "",
) -> Commands:
    """Keep a unit running with the configuration on disk.

    The unit is restarted, or with `reload` only reloaded, if a path in `newer_than` (a directory
    includes everything below it) changed after the process started. That is a fact of the host, not
    of this run: if a run is killed between file and restart, the next one restarts the unit.
    `others` are units that this one starts: they must not be masked, and systemd must have loaded
    their current files. The unit is also restarted if it is active but the shell command `question`
    fails or hangs. `afterwards` is a shell command for the end of a change, whether or not it
    succeeded.
    """
    state = _state(_question(unit, newer_than=newer_than, others=others, question=question))
    required = steps(unit, state, running=running, enabled=enabled, reload=reload)
    if required:
        explain([step.reason for step in required])
        yield StringCommand(script(unit, required, afterwards))


@declared(prefetch=lambda unit, *, newer_than: [_asked(_question(unit, newer_than=newer_than))])
def has_run(unit: str, *, newer_than: Sequence[str]) -> Commands:
    """Run a unit that does something and ends, if it has not run since a path in `newer_than`
    changed. Otherwise a run that failed before the correction would still be its last one.

    Another unit must want it: systemd forgets when others have run.
    """
    state = _state(_question(unit, newer_than=newer_than))
    if state.configured > state.started:
        explain([f"{unit} has not run since its configuration changed"])
        yield StringCommand("systemctl", "start", "--no-block", QuoteString(unit))


@declared(prefetch=lambda *units, **_: [ask(EnabledUnits, units=list(units))])
def starts_at_boot(*units: str, by_target: bool = False) -> Commands:
    """Make sure that one of several alternative units starts at boot: enable the first that exists
    if none is enabled.

    For services that distributions start in different ways. Nothing is started or stopped now. If
    none of the units exists, there is nothing to do. `by_target` adds the unit to the target of its
    type only: `enable` would also restore its alias, and then systemd may take a running unit for a
    stopped one.
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
        target = "sockets.target" if unit.endswith(".socket") else "multi-user.target"
        verb = ["add-wants", target] if by_target else ["enable"]
        yield StringCommand("systemctl", "--quiet", *verb, QuoteString(unit))


_ACCEPT = "list it in system_accepted_overrides"
Then = Literal["nothing", "reload", "restart"]


@declared(prefetch=lambda *units, **_: [ask(UnitOverrides, units=list(units))])
def without_overrides(
    *units: str, known: Sequence[str] = (), then: Then = "nothing", correct: bool = True
) -> Commands:
    """Run units as their packages and llmhost declare them: remove drop-ins and unit files of
    others, and unset what was added to environment files. A copy is kept in KEPT.

    `known` are paths to leave alone. Afterwards, the units are reloaded by systemd, and with
    `restart` those that run are restarted; with `nothing`, a later `systemd.service` does so.
    Without `correct`, and for drop-ins of several units, overrides are only reported. So are
    packaged unit files that were changed, which only their packages can restore; one by which
    Docker may offer its API on the network is refused.
    """
    found = get_fact(UnitOverrides, units=list(units))
    if found.unknown:
        yield refuse([*found.unknown.values()])
        return
    foreign = found.foreign(known)
    opened = [each for each in foreign if correct and each.kind == "edited" and each.opens_docker]
    if opened:
        yield refuse([f"{each.sentence}; {each.way_out}, or {_ACCEPT}" for each in opened])
        return
    wrong = [each for each in foreign if correct and each.kind not in ("shared", "edited")]
    note(
        f"{each.sentence}; llmhost leaves it alone: {each.way_out}, or {_ACCEPT}"
        for each in foreign
        if each not in wrong
    )
    outdated = found.outdated if then != "nothing" else ()
    if wrong or outdated:
        explain(
            [
                *(_unless_accepted(each) for each in wrong),
                *(f"systemd has loaded an older {unit} than the one on disk" for unit in outdated),
            ]
        )
        yield StringCommand(_end_overrides(wrong, units, then))


def _unless_accepted(override: Override) -> str:
    verb = "unset" if override.kind == "environment" else "removed"
    return f"{override.sentence}; it is {verb} unless system_accepted_overrides has this path"


def _end_overrides(wrong: Sequence[Override], units: Sequence[str], then: Then) -> str:
    lines = ["set -e", f"install -d -m 0700 {KEPT}", *(each.correction for each in wrong)]
    if then != "nothing":
        lines.append("systemctl daemon-reload")
    if then == "restart":
        # The component's next operations start what does not run, and report why it cannot.
        lines += [f"systemctl try-restart {shlex.quote(unit)} || true" for unit in units]
    return "\n".join(lines)
