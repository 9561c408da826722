"""Kernel parameters."""

from collections.abc import Mapping

from pyinfra.api import StringCommand

from llmhost.facts.sysctl import KernelParameters
from llmhost.operations.changes import explain, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.operations.files import apply_command
from llmhost.system.files import File, differences
from llmhost.system.sysctl import deviations, render, script, settable, unknown


def _question(
    values: Mapping[str, str], *, path: str, if_known: Mapping[str, str] | None = None
) -> Question:
    return ask(KernelParameters, names=[*values, *(if_known or {})], path=path)


@declared(prefetch=lambda values, **more: [_question(values, **more)])
def parameters(
    values: Mapping[str, str], *, path: str, if_known: Mapping[str, str] | None = None
) -> Commands:
    """Set parameters now, and at boot with the file at `path`; those in `if_known` only if the
    kernel has them.

    A container sets only its own parameters. The others belong to its host; they are left alone and
    not reported as differences.
    """
    question = _question(values, path=path, if_known=if_known)
    state, files = get_fact(KernelParameters, **question.arguments)
    known = {name: value for name, value in (if_known or {}).items() if name in state.values}
    own = settable({**values, **known}, state)
    if state.values and (strange := unknown(own, state)):
        yield refuse(
            [
                f"this kernel has no parameter {name}: remove it from system_sysctl"
                for name in strange
            ]
        )
        return
    reasons = deviations(own, state)
    wrong = differences([File(path, render(own))], files)
    if reasons or wrong:
        explain([*wrong.values(), *reasons.values()])
    if wrong:
        yield apply_command(list(wrong))
    if reasons:
        yield StringCommand(script({name: own[name] for name in reasons}))
