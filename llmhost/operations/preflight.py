"""The check before the first change."""

import time

from pyinfra import host

from llmhost.facts.system import HostIdentityFact
from llmhost.nvidia.plan import DriverPolicy, impossible
from llmhost.operations.changes import note, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.nvidia_packages import read_state
from llmhost.preflight import findings


@declared(prefetch=None)  # its clock is compared with the controller's
def fit(
    *,
    paths: list[str],
    receipt: str,
    docker_source: str,
    min_memory_gib: float,
    min_free_disk_gib: float,
    max_clock_skew_seconds: float,
    gpus: DriverPolicy | None = None,
) -> Commands:
    """Refuse the host, with all reasons, if it does not meet the requirements.

    `gpus` are the services' requirements for its GPUs, which are read only if there are any. Those
    that cannot be met are a warning: they stop only what needs the GPUs (docs/decisions/0087).
    None: the host runs no services.
    """
    identity = get_fact(HostIdentityFact, paths=paths, receipt=receipt)
    if identity is None:
        yield refuse(["the host could not be read; see the lines above for the reason"])
        return
    wrong = list(
        findings(
            identity,
            docker_source=docker_source,
            min_memory_gib=min_memory_gib,
            min_free_disk_gib=min_free_disk_gib,
            max_clock_skew_seconds=max_clock_skew_seconds,
            controller_clock=time.time(),
        )
    )
    if wrong:
        yield refuse(wrong)
    elif gpus and gpus.requests and host.state.is_executing and (state := read_state(wanted=True)):
        note(impossible(gpus, state))
