"""From settings to a VRAM ledger for each GPU."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmhost.models.files import shape_of
from llmhost.models.lora import rank_of
from llmhost.models.memory import Estimate, Use
from llmhost.nvidia.driver import Unsatisfiable
from llmhost.nvidia.gpu_allocation import allocate_numbers
from llmhost.options.model import Model
from llmhost.options.shape import Shape
from llmhost.services.base import AnyService
from llmhost.services.vllm import VllmOptions, parallel_over
from llmhost.settings import Settings
from llmhost.units import gib_to_bytes
from llmhost.vram.ledger import GpuShare, Ledger, Load


@dataclass(frozen=True)
class VramPlan:
    """All GPUs of a host, and sentences about models and services without an estimate. `on_host`
    are services with GPUs by UUID, whose numbers are known only on the host."""

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
) -> VramPlan:
    """The plan for GPUs of these sizes: `settings.vram.gpu_bytes`, or those that a host has.

    `granted` are the numbers of each service's GPUs on a host; without it they follow from the
    declared numbers and counts.
    """
    uncounted = list(_services_without_figures(settings))
    if granted is None:
        granted, sentences = _by_number(settings, len(gpu_bytes))
        uncounted = [*sentences, *uncounted]
    loads, unknown = _all_loads(settings, gpu_bytes, granted)
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
    return VramPlan(tuple(ledgers), (*uncounted, *unknown), tuple(on_host))


def _all_loads(
    settings: Settings, gpu_bytes: Sequence[int], granted: Mapping[str, tuple[int, ...]]
) -> tuple[list[Load], list[str]]:
    """The models of services with an estimate, and why some have no size."""
    loads: list[Load] = []
    unknown = []
    for service in settings.catalogue:
        estimate = service.memory(settings.options(service.name))
        gpus = [(gpu, gpu_bytes[gpu]) for gpu in granted.get(service.name, ())]
        for model in service.loaded(settings.models_of(service.name)) if gpus else ():
            try:
                parts, tensor = _parts(settings, service, model, len(gpus))
                loads += _loads(model, estimate, gpus, parts, tensor) if estimate else ()
            except ValueError as error:
                unknown.append(f"'{model.name}': {error}")
    return loads, unknown


def _by_number(settings: Settings, count: int) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Numbers of each service's GPUs, and why some have none."""
    requests, sentences = dict(settings.gpu_requests), []
    for service, request in settings.gpu_requests.items():
        numbers = () if request.by_uuid or isinstance(request.gpus, int) else request.gpus
        for gpu in (int(each) for each in numbers):
            if gpu >= count:
                sentences.append(
                    f"'{service}' runs on GPU {gpu}, but the last one is GPU {count - 1}"
                )
                requests.pop(service, None)
    try:
        return allocate_numbers(requests, count), sentences
    except Unsatisfiable as error:
        return {}, [*sentences, *error.sentences]


def _parts(settings: Settings, service: AnyService, model: Model, gpus: int) -> tuple[int, int]:
    """Into how many equal parts a model is divided, one for each GPU, of all hosts of a group; and
    how many GPUs compute each layer together.

    If the layers cannot be divided equally, the largest part counts: fewer parts of its size.
    """
    options = settings.options(service.name)
    if not isinstance(options, VllmOptions):
        return gpus, 1
    parallel = parallel_over(settings.engine_group, options)
    shape = None if model.vram_gib is not None else shape_of(model)
    layers = shape.layers if shape and shape.layers else parallel.pipeline
    parts = max(1, parallel.tensor * layers // -(-layers // parallel.pipeline))
    return parts, min(parallel.tensor, parts)


def _loads(
    model: Model, estimate: Estimate, gpus: Sequence[tuple[int, int]], parts: int, tensor: int
) -> Iterator[Load]:
    """The model's part on each of its GPUs of this host, given with their sizes.

    Raises ValueError with the reason if its memory is unknown.
    """
    measured = None if model.vram_gib is None else gib_to_bytes(model.vram_gib)
    shape = _shape(model) if measured is None else None
    for gpu, gpu_bytes in gpus:
        use = Use(
            context_tokens=model.context_tokens,
            parallel=model.parallel,
            cache_type=model.cache_type,
            adapter_bytes=_beside_bytes(model),
            adapter_rank=_adapter_rank(model),
            gpus=parts,
            tensor=tensor,
            embeds=model.task != "generate",
            gpu_bytes=gpu_bytes,
        )
        yield Load(model.name, model.service, gpu, shape, use, estimate, model.resident, measured)


def _beside_bytes(model: Model) -> int:
    """Files that are loaded with the weights; a draft's cache is small, and not counted."""
    paths = [path for path in map(Path, model.beside.values()) if path.is_file()]
    return sum(path.stat().st_size for path in paths)


def _adapter_rank(model: Model) -> int:
    """vLLM reserves room of the largest rank for each of its adapters."""
    try:
        return len(model.adapters) * max(map(rank_of, model.adapters), default=0)
    except ValueError as error:
        raise ValueError(f"an adapter {error}") from None


def _shape(model: Model) -> Shape:
    try:
        shape = shape_of(model)
    except ValueError as error:
        raise ValueError(
            f"its file {error}; read its GPU memory in nvidia-smi and set vram_gib"
        ) from None
    if shape is None:
        raise ValueError("its sizes are unknown; set its shape, or its measured vram_gib")
    return shape


def _shares(settings: Settings, granted: Mapping[str, tuple[int, ...]]) -> Iterator[GpuShare]:
    for service in settings.catalogue:
        fraction = settings.options(service.name).gpu_fraction
        if fraction is not None:
            beside = service.beside_fraction_bytes
            for gpu in granted.get(service.name, ()):
                yield GpuShare(service.name, gpu, fraction, beside)


def _services_without_figures(settings: Settings) -> Iterator[str]:
    for service in settings.catalogue:
        options, models = settings.options(service.name), settings.models_of(service.name)
        counted = models and service.memory(options)
        if options.gpu_request and options.gpu_fraction is None and not counted:
            yield (
                f"the GPU memory of '{service.name}' is unknown; set {service.name}_gpu_fraction"
            )
