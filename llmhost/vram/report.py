"""The output of `llmhost vram --json`. Pure. Sizes are in bytes."""

from collections.abc import Iterable
from dataclasses import dataclass

from llmhost.vram.ledger import Ledger, Load, shortfalls
from llmhost.vram.plan import VramPlan
from llmhost.vram.remedies import remedies

SCHEMA = 1


@dataclass(frozen=True)
class ShareMemory:
    """What a service takes of a GPU."""

    service: str
    bytes: int


@dataclass(frozen=True)
class ModelMemory:
    """One model on one GPU. The parts of a `measured` one are 0; a `resident` one is always
    loaded."""

    model: str
    service: str
    resident: bool
    measured: bool
    context_tokens: int
    weights_bytes: int
    cache_bytes: int
    work_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class GpuMemory:
    """One GPU at its peak. `free_bytes` is negative if memory is missing; then `problems` are
    sentences about what does not fit, and `remedies` about what would."""

    gpu: int
    fits: bool
    total_bytes: int
    reserve_bytes: int
    peak_bytes: int
    free_bytes: int
    problems: tuple[str, ...]
    remedies: tuple[str, ...]
    shares: tuple[ShareMemory, ...]
    models: tuple[ModelMemory, ...]


@dataclass(frozen=True)
class HostMemory:
    """The GPUs of one host."""

    host: str
    fits: bool
    gpus: tuple[GpuMemory, ...]


@dataclass(frozen=True)
class VramReport:
    """The output."""

    schema: int
    hosts: tuple[HostMemory, ...]


def vram_report(plans: Iterable[tuple[str, VramPlan]]) -> VramReport:
    """The report on hosts with their plans."""
    hosts = (HostMemory(host, plan.fits, tuple(map(_gpu, plan.ledgers))) for host, plan in plans)
    return VramReport(SCHEMA, tuple(hosts))


def _gpu(ledger: Ledger) -> GpuMemory:
    return GpuMemory(
        gpu=ledger.gpu,
        fits=ledger.fits,
        total_bytes=ledger.total_bytes,
        reserve_bytes=ledger.reserve_bytes,
        peak_bytes=ledger.peak_bytes,
        free_bytes=ledger.free_bytes,
        problems=tuple(shortfalls(ledger)),
        remedies=() if ledger.fits else tuple(remedies(ledger)),
        shares=tuple(ShareMemory(each.service, ledger.share_bytes(each)) for each in ledger.shares),
        models=tuple(map(_model, ledger.loads)),
    )


def _model(load: Load) -> ModelMemory:
    return ModelMemory(
        model=load.model,
        service=load.service,
        resident=load.resident,
        measured=load.measured_bytes is not None,
        context_tokens=load.use.context_tokens,
        weights_bytes=load.memory.weights_bytes,
        cache_bytes=load.memory.cache_bytes,
        work_bytes=load.memory.work_bytes,
        total_bytes=load.total_bytes,
    )
