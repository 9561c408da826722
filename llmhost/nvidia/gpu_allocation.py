"""Which GPUs each service gets, by UUID.

Compose's `count: N` always means GPUs 0 to N-1, so that two services with `count: 1` would silently
share GPU 0. Here every GPU goes to one service, unless all that use it agreed to share. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmhost.nvidia.driver import Unsatisfiable
from llmhost.nvidia.state import Gpu, NvidiaState
from llmhost.units import counted

KIND = "nvidia.com/gpu"

Devices = Mapping[str, tuple[str, ...]]
"""CDI names of each service's GPUs."""


@dataclass(frozen=True)
class GpuRequest:
    """What a service asks for: how many GPUs, or which, by index (`"0"`) or UUID. `shared` lets
    it live beside other services that allow it too."""

    gpus: int | tuple[str, ...]
    shared: bool = False

    @property
    def count(self) -> int:
        """How many GPUs."""
        return self.gpus if isinstance(self.gpus, int) else len(self.gpus)

    @property
    def by_uuid(self) -> bool:
        """Whether only the host can tell which GPUs are meant."""
        return not isinstance(self.gpus, int) and not all(each.isdecimal() for each in self.gpus)


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


def allocate_numbers(requests: Mapping[str, GpuRequest], count: int) -> dict[str, tuple[int, ...]]:
    """Indices by service, where all that is known of the GPUs is how many there are.

    Services that name a GPU by UUID are left out. Raises Unsatisfiable.
    """
    gpus = [Gpu(index, str(index), "", "", False, None, False, "") for index in range(count)]
    told = {service: each for service, each in requests.items() if not each.by_uuid}
    granted = allocate(told, gpus)
    return {service: tuple(int(uuid) for uuid in uuids) for service, uuids in granted.items()}


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
            raise Unsatisfiable(both_take(service, taken[uuid][0], uuid))
    return named


def both_take(one: str, other: str, gpu: str) -> str:
    """Two services name one GPU, and one of them at least does not share."""
    return (
        f"services '{other}' and '{one}' both take GPU {gpu}: give them different ones, "
        f"or set {other}_gpu_shared and {one}_gpu_shared"
    )


def _find(service: str, wanted: str, gpus: Sequence[Gpu]) -> str:
    for gpu in gpus:
        if wanted in {gpu.uuid, str(gpu.index)}:
            return gpu.uuid
    known = ", ".join(_name(gpu) for gpu in gpus) or "none"
    raise Unsatisfiable(
        f"service '{service}' asks for GPU {wanted}, which is not on this host (there: {known})"
    )


def _name(gpu: Gpu) -> str:
    return gpu.uuid if gpu.uuid == str(gpu.index) else f"{gpu.index} = {gpu.uuid}"


def _too_few(service: str, wanted: int, fitting: int, there: int) -> str:
    return (
        f"service '{service}' asks for {counted(wanted, 'GPU')}, and {fitting} of this host's"
        f" {there} "
        f"are free: ask for fewer, or let services share with <service>_gpu_shared"
    )


def devices_of(requests: Mapping[str, GpuRequest], state: NvidiaState) -> Devices:
    """CDI names of the GPUs that each service gets on a host. Raises Unsatisfiable."""
    if requests and not state.gpus:
        raise Unsatisfiable(f"{' and '.join(requests)} must wait until the driver lists its GPUs")
    granted = allocate(requests, state.gpus)
    names = {service: cdi_names(uuids, wsl=state.is_wsl) for service, uuids in granted.items()}
    asked = dict.fromkeys(each.partition("=")[2] for found in names.values() for each in found)
    if missing := [each for each in asked if each not in state.cdi_devices]:
        raise Unsatisfiable(f"no CDI spec describes GPU {' and '.join(missing)}")
    return names


def cdi_names(uuids: Sequence[str], *, wsl: bool) -> tuple[str, ...]:
    """Names for Compose's `devices`. CDI on WSL knows only `all` (toolkit, pkg/nvcdi/lib-wsl.go),
    so that there every service sees every GPU."""
    if wsl:
        return (f"{KIND}=all",) if uuids else ()
    return tuple(f"{KIND}={uuid}" for uuid in uuids)


def wsl_note(devices: Devices) -> list[str]:
    """Sentences for the plan about requests that WSL cannot fulfil."""
    seeing = [service for service, names in devices.items() if f"{KIND}=all" in names]
    if not seeing:
        return []
    return [f"CDI on WSL knows only 'all': {' and '.join(seeing)} will see every GPU of this host"]
