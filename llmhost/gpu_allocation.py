"""Which GPUs each service gets, by UUID.

Compose's `count: N` always means GPUs 0 to N-1, so that two services with `count: 1` would silently
share GPU 0. Here every GPU goes to one service, unless all that use it agreed to share. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmhost.nvidia_driver import Unsatisfiable
from llmhost.nvidia_state import Gpu

KIND = "nvidia.com/gpu"


@dataclass(frozen=True)
class GpuRequest:
    """What a service asks for: how many GPUs, or which, by index (`"0"`) or UUID. `shared` lets
    it live beside other services that allow it too."""

    gpus: int | tuple[str, ...]
    shared: bool = False


def allocate(requests: Mapping[str, GpuRequest], gpus: Sequence[Gpu]) -> dict[str, tuple[str, ...]]:
    """UUIDs by service; those that name their GPUs are served first. Raises Unsatisfiable."""
    taken: dict[str, list[str]] = {gpu.uuid: [] for gpu in gpus}
    granted: dict[str, tuple[str, ...]] = {}
    by_name = sorted(requests, key=lambda service: isinstance(requests[service].gpus, int))
    for service in by_name:
        request = requests[service]
        granted[service] = _grant(service, request, gpus, taken, requests)
        for uuid in granted[service]:
            taken[uuid].append(service)
    return {service: granted[service] for service in requests}


def _grant(
    service: str,
    request: GpuRequest,
    gpus: Sequence[Gpu],
    taken: Mapping[str, list[str]],
    requests: Mapping[str, GpuRequest],
) -> tuple[str, ...]:
    def free(uuid: str) -> bool:
        others = taken[uuid]
        return not others or (request.shared and all(requests[each].shared for each in others))

    if isinstance(request.gpus, int):
        # The emptiest first, in the order of their indices.
        fitting = [gpu.uuid for gpu in sorted(gpus, key=lambda gpu: len(taken[gpu.uuid]))]
        fitting = [uuid for uuid in fitting if free(uuid)]
        if len(fitting) < request.gpus:
            raise Unsatisfiable(_too_few(service, request.gpus, len(fitting), len(gpus)))
        return tuple(fitting[: request.gpus])
    named = tuple(_find(service, wanted, gpus) for wanted in request.gpus)
    for uuid in named:
        if not free(uuid):
            raise Unsatisfiable(
                f"services '{service}' and '{taken[uuid][0]}' both take GPU {uuid}: give them "
                f"different ones, or set {service}_gpu_shared and {taken[uuid][0]}_gpu_shared"
            )
    return named


def _find(service: str, wanted: str, gpus: Sequence[Gpu]) -> str:
    for gpu in gpus:
        if wanted in {gpu.uuid, str(gpu.index)}:
            return gpu.uuid
    known = ", ".join(f"{gpu.index} = {gpu.uuid}" for gpu in gpus) or "none"
    raise Unsatisfiable(
        f"service '{service}' asks for GPU {wanted}, which is not on this host (there: {known})"
    )


def _too_few(service: str, wanted: int, fitting: int, there: int) -> str:
    return (
        f"service '{service}' asks for {wanted} GPU(s), and {fitting} of this host's {there} "
        f"are free: ask for fewer, or let services share with <service>_gpu_shared"
    )


def cdi_names(uuids: Sequence[str], *, wsl: bool) -> tuple[str, ...]:
    """Names for Compose's `devices`. CDI on WSL knows only `all` (toolkit, pkg/nvcdi/lib-wsl.go),
    so that there every service sees every GPU."""
    if wsl:
        return (f"{KIND}=all",) if uuids else ()
    return tuple(f"{KIND}={uuid}" for uuid in uuids)
