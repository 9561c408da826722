"""Which services a deploy replaces without an interruption: a second container answers meanwhile
(docs/decisions/0159)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from llmhost.docker.compose import Project, StandIn
from llmhost.gateway.nginx import loaded_command
from llmhost.gateway.tree import NginxPaths
from llmhost.nvidia.gpu_allocation import Devices, allocate
from llmhost.nvidia.state import Gpu
from llmhost.services.base import AnyService
from llmhost.settings import Settings
from llmhost.stack.project import started_first
from llmhost.units import exact_gib
from llmhost.vram.plan import vram_plan


def with_stand_ins(
    project: Project, settings: Settings, devices: Devices, gpus: Sequence[Gpu]
) -> Project:
    """The project with a stand-in for each service for which two containers fit on the host, and
    for other services of the gateway the reason."""
    stand_ins: dict[str, StandIn] = {}
    alone: dict[str, str] = {}
    for service in settings.offered:
        if service.name not in project.services:
            continue  # of the servers behind this gateway
        options = settings.options(service.name)
        if why := _obstacle(settings, service, devices):
            alone[service.name] = why
            continue
        try:
            needs = _gpu_bytes(settings, service.name, gpus)
        except ValueError as error:
            alone[service.name] = str(error)
            continue
        stand_ins[service.name] = StandIn(
            port=options.port or 0,
            container_port=service.container_port,
            nginx=NginxPaths().configuration,
            loaded=loaded_command(settings.gateway.status_port),
            memory_bytes=_memory_bytes(settings, service.name),
            gpu_bytes=needs,
        )
    return replace(project, stand_ins=stand_ins, alone=alone)


def _obstacle(settings: Settings, service: AnyService, devices: Devices) -> str:
    """Why two containers of a service cannot run beside each other, whatever the memory."""
    if not settings.stack.updates_beside:
        return "stack_updates_beside is False"
    if service.name in settings.group_services:
        return "an engine group restarts as one"
    if service.data_volumes(settings.options(service.name)):
        return "two containers cannot share its data"
    # It has to start after them, and may be of use with their new versions only.
    if earlier := started_first(settings, service, devices):
        return f"it starts after {' and '.join(earlier)}"
    return ""


def _memory_bytes(settings: Settings, service: str) -> int:
    """Estimate of what the models of a service need on the processors; 0 if it is unknown, or if
    they are on a GPU."""
    if service in settings.gpu_requests:
        return 0
    (ledger,) = vram_plan(settings, [0], {service: (0,)}).ledgers
    return sum(load.total_bytes for load in ledger.loads if load.resident)


def _gpu_bytes(settings: Settings, service: str, gpus: Sequence[Gpu]) -> Mapping[str, int]:
    """Memory that a second container needs, by GPU. Raises ValueError if there is not enough."""
    if service not in settings.gpu_requests:
        return {}
    if not gpus:
        raise ValueError("its GPUs are not known yet")
    index = {gpu.uuid: number for number, gpu in enumerate(gpus)}
    uuids = allocate(settings.gpu_requests, gpus)
    granted = {name: tuple(index[each] for each in found) for name, found in uuids.items()}
    ledgers = vram_plan(settings, [gpu.memory_bytes for gpu in gpus], granted).ledgers
    needs = {uuid: ledgers[index[uuid]].peak_bytes_of(service) for uuid in uuids[service]}
    for uuid, need in needs.items():
        ledger = ledgers[index[uuid]]
        if not need:
            raise ValueError("its GPU memory is not known")
        if ledger.free_bytes < need:
            raise ValueError(
                f"a second container needs {exact_gib(need)} of GPU {gpus[index[uuid]].index},"
                f" which has {exact_gib(max(0, ledger.free_bytes))} to spare"
            )
    return needs
