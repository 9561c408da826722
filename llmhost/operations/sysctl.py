"""Parameters of the kernel."""

from collections.abc import Mapping

from pyinfra.api import StringCommand

from llmhost.facts.sysctl import KernelParameters
from llmhost.operations.changes import explain, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.operations.files import apply_command
from llmhost.system.files import File, differences
from llmhost.system.sysctl import deviations, render, script, settable, unknown


@declared(prefetch=lambda values, *, path: [ask(KernelParameters, names=list(values), path=path)])
def parameters(values: Mapping[str, str], *, path: str) -> Commands:
    """Set parameters now, and at boot by the file at `path`.

    In a container only those that it has of its own are set: the others are its host's to set,
    and are left as they are without being counted as a difference.
    """
    state, files = get_fact(KernelParameters, names=list(values), path=path)
    own = settable(values, state)
    if state.values and (strange := unknown(own, state)):
        yield refuse([f"This kernel has no parameter {name}: remove it" for name in strange])
        return
    reasons = deviations(own, state)
    wrong = differences([File(path, render(own))], files)
    if reasons or wrong:
        explain([*wrong.values(), *reasons.values()])
    if wrong:
        yield apply_command(list(wrong))
    if reasons:
        yield StringCommand(script({name: own[name] for name in reasons}))
