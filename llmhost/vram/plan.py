"""From settings to a ledger for each GPU."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmhost.models.files import shape_of
from llmhost.nvidia.driver import Unsatisfiable
from llmhost.nvidia.gpu_allocation import allocate_numbers
from llmhost.options.model import Model
from llmhost.settings import Settings
from llmhost.units import gib_to_bytes
from llmhost.vram.ledger import Ledger, Load, Share


@dataclass(frozen=True)
class Plan:
    """All GPUs of a host, and sentences on what could not be counted. `on_host` are services that
    name their GPU by UUID: where they run is known only on the host."""

    ledgers: tuple[Ledger, ...]
    uncounted: tuple[str, ...] = ()
    on_host: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every GPU holds what is planned for it."""
        return all(ledger.fits for ledger in self.ledgers)


def vram_plan(
    settings: Settings,
    gpu_bytes: Sequence[int],
    granted: Mapping[str, tuple[int, ...]] | None = None,
) -> Plan:
    """The plan for GPUs of these sizes: `settings.vram.gpu_bytes`, or those that a host has.

    `granted` are the numbers of each service's GPUs on a host; without it they are worked out from
    the numbers and counts that the services ask for.
    """
    uncounted = list(_services_without_figures(settings))
    if granted is None:
        granted, sentences = _by_number(settings, len(gpu_bytes))
        uncounted = [*sentences, *uncounted]
    loads: list[Load] = []
    for model in settings.models:
        for gpu in (gpus := granted.get(model.service, ())):
            load = _load(model, gpu, len(gpus))
            if isinstance(load, str):
                uncounted.append(f"'{model.name}': {load}")
                break
            loads.append(load)
    shares = [*_shares(settings, granted)]
    ledgers = [
        Ledger(
            gpu=number,
            total_bytes=total,
            reserve_bytes=gib_to_bytes(settings.vram.reserve_gib),
            loads=tuple(load for load in loads if load.gpu == number),
            shares=tuple(share for share in shares if share.gpu == number),
        )
        for number, total in enumerate(gpu_bytes)
    ]
    on_host = [name for name in settings.gpu_requests if name not in granted]
    return Plan(tuple(ledgers), tuple(uncounted), tuple(on_host))


def _by_number(settings: Settings, count: int) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Numbers of each service's GPUs, and why some have none."""
    requests, sentences = dict(settings.gpu_requests), []
    for service, request in settings.gpu_requests.items():
        numbers = () if request.by_uuid or isinstance(request.gpus, int) else request.gpus
        for gpu in (int(each) for each in numbers):
            if gpu >= count:
                sentences.append(f"'{service}' runs on GPU {gpu}, and the last one is {count - 1}")
                requests.pop(service, None)
    try:
        return allocate_numbers(requests, count), sentences
    except Unsatisfiable as error:
        return {}, [*sentences, *error.sentences]


def _load(model: Model, gpu: int, parts: int) -> Load | str:
    """What the model takes, or why that is not known."""
    measured = None if model.vram_gib is None else gib_to_bytes(model.vram_gib)
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
        parts=parts,
    )


def _shares(settings: Settings, granted: Mapping[str, tuple[int, ...]]) -> Iterator[Share]:
    for service, gpus in granted.items():
        fraction = settings.options(service).gpu_fraction
        if fraction is not None:
            yield from (Share(service, gpu, fraction) for gpu in gpus)


def _services_without_figures(settings: Settings) -> Iterator[str]:
    for service in settings.gpu_requests:
        if not settings.models_of(service) and settings.options(service).gpu_fraction is None:
            yield f"'{service}' runs on a GPU without models; give its {service}_gpu_fraction"
