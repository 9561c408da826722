"""From settings to a ledger for each GPU."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmhost.model_files import shape_of
from llmhost.settings.model import Model
from llmhost.settings.root import Settings
from llmhost.vram import GIB, Ledger, Load, Share


@dataclass(frozen=True)
class Plan:
    """All GPUs of a host, and sentences on what could not be counted."""

    ledgers: tuple[Ledger, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every GPU holds what is planned for it."""
        return all(ledger.fits for ledger in self.ledgers)


def vram_plan(settings: Settings, gpu_bytes: Sequence[int]) -> Plan:
    """The plan for GPUs of these sizes: `settings.vram.gpu_bytes`, or those that a host has."""
    loads, uncounted = [], list(_services_without_figures(settings, len(gpu_bytes)))
    for model in settings.models:
        gpu = _gpu_of(settings, model.service)
        if gpu is None:
            continue
        load = _load(model, gpu)
        if isinstance(load, str):
            uncounted.append(f"'{model.name}': {load}")
        else:
            loads.append(load)
    reserve = int(settings.vram.reserve_gib * GIB)
    ledgers = [
        Ledger(
            gpu=number,
            total_bytes=total,
            reserve_bytes=reserve,
            loads=tuple(load for load in loads if load.gpu == number),
            shares=tuple(share for share in _shares(settings) if share.gpu == number),
        )
        for number, total in enumerate(gpu_bytes)
    ]
    return Plan(tuple(ledgers), tuple(uncounted))


def _gpu_of(settings: Settings, service: str) -> int | None:
    """Number of the service's GPU; none if it runs on the CPU or is not declared."""
    return settings.options(service).gpu if service in settings.services else None


def _load(model: Model, gpu: int) -> Load | str:
    """What the model takes, or why that is not known."""
    measured = None if model.vram_gib is None else int(model.vram_gib * GIB)
    try:
        shape = shape_of(model) if measured is None else None
    except ValueError as error:
        return f"its file {error}; give its vram_gib, as measured"
    if shape is None and measured is None:
        return "nothing tells its sizes; give its shape, or its vram_gib as measured"
    adapter = Path(model.adapter) if model.adapter else None
    return Load(
        model=model.name,
        service=model.service,
        gpu=gpu,
        shape=shape,
        context_tokens=model.context_tokens,
        parallel=model.parallel,
        cache_type=model.cache_type,
        resident=model.resident,
        adapter_bytes=adapter.stat().st_size if adapter and adapter.is_file() else 0,
        measured_bytes=measured,
    )


def _shares(settings: Settings) -> Iterator[Share]:
    for service in settings.services:
        options = settings.options(service)
        if options.gpu is not None and options.gpu_fraction is not None:
            yield Share(service, options.gpu, options.gpu_fraction)


def _services_without_figures(settings: Settings, gpus: int) -> Iterator[str]:
    for service in settings.services:
        options = settings.options(service)
        if options.gpu is None:
            continue
        if options.gpu >= gpus:
            yield f"'{service}' runs on GPU {options.gpu}, and the last one is {gpus - 1}"
        if not settings.models_of(service) and options.gpu_fraction is None:
            yield f"'{service}' runs on a GPU without models; give its {service}_gpu_fraction"
