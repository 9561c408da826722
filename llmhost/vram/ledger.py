"""The VRAM ledger: the memory of models on each GPU, and whether it is enough.

It only adds estimates, which are the engines' (`Service.memory`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmhost.models.memory import Estimate, Memory, Use
from llmhost.options.shape import Shape
from llmhost.units import exact_gib


@dataclass(frozen=True)
class Load:
    """One model on one GPU, or its part on one of several.

    `measured_bytes`, from real hardware, overrides the estimate; without it a shape is required. A
    model that is not resident is loaded on demand and replaces the previous one.
    """

    model: str
    service: str
    gpu: int
    shape: Shape | None
    use: Use
    estimate: Estimate
    resident: bool = True
    measured_bytes: int | None = None

    @property
    def memory(self) -> Memory:
        """The engine's estimate; the parts of a measured model are unknown."""
        if self.shape is None or self.measured_bytes is not None:
            return Memory()
        return self.estimate(self.shape, self.use)

    @property
    def total_bytes(self) -> int:
        """The sum, or the measured value."""
        if self.measured_bytes is not None:
            return -(-self.measured_bytes // self.use.gpus)
        return self.memory.total_bytes

    def with_context(self, tokens: int) -> "Load":
        """The same with another context."""
        return replace(self, use=replace(self.use, context_tokens=tokens))


@dataclass(frozen=True)
class GpuShare:
    """A service that reserves a fixed fraction of its GPU's memory for its models, as vLLM does;
    `beside_bytes` is memory in addition to the fraction."""

    service: str
    gpu: int
    fraction: float
    beside_bytes: int = 0


@dataclass(frozen=True)
class Ledger:
    """One GPU with its models and shares. Sizes in bytes."""

    gpu: int
    total_bytes: int
    reserve_bytes: int
    loads: tuple[Load, ...]
    shares: tuple[GpuShare, ...] = ()

    @property
    def limit_bytes(self) -> int:
        """Memory available for models."""
        return self.total_bytes - self.reserve_bytes

    def at_peak(self) -> list[tuple[str, int]]:
        """Memory at the peak, by name: shares, resident models, and the largest on-demand model of
        each service."""
        in_use = [(share.service, self.share_bytes(share)) for share in self.shares]
        largest: dict[str, Load] = {}
        for load in self.unshared:
            if load.resident:
                in_use.append((load.model, load.total_bytes))
            else:
                other = largest.get(load.service, load)
                largest[load.service] = max(load, other, key=lambda each: each.total_bytes)
        return in_use + [(load.model, load.total_bytes) for load in largest.values()]

    @property
    def peak_bytes(self) -> int:
        """Maximum memory in use at one time."""
        return sum(size for _, size in self.at_peak())

    def peak_bytes_of(self, service: str) -> int:
        """The part of a service in it; 0 if it is not known."""
        loads = tuple(load for load in self.loads if load.service == service)
        shares = tuple(share for share in self.shares if share.service == service)
        return replace(self, loads=loads, shares=shares).peak_bytes

    @property
    def free_bytes(self) -> int:
        """Free memory at the peak; negative if the plan does not fit."""
        return self.limit_bytes - self.peak_bytes

    @property
    def unshared(self) -> tuple[Load, ...]:
        """Models outside of all shares."""
        services = {share.service for share in self.shares}
        return tuple(load for load in self.loads if load.service not in services)

    @property
    def fits(self) -> bool:
        """Whether the peak is within the limit, and the models fit into their shares."""
        return self.free_bytes >= 0 and all(
            self.needed_in_share(share) <= self.share_bytes(share) for share in self.shares
        )

    def share_bytes(self, share: GpuShare) -> int:
        """Size of a share, including the memory in addition to the fraction."""
        return int(share.fraction * self.total_bytes) + share.beside_bytes

    def needed_in_share(self, share: GpuShare) -> int:
        """Minimum size of a share."""
        loads = [load for load in self.loads if load.service == share.service]
        return share.beside_bytes + sum(load.total_bytes for load in loads)


def shortfalls(ledger: Ledger) -> Iterator[str]:
    """What does not fit, and the missing memory; nothing if everything fits."""
    if ledger.free_bytes < 0:
        yield (
            f"GPU {ledger.gpu} has {exact_gib(ledger.total_bytes)}, of which"
            f" {exact_gib(ledger.limit_bytes)} are available, and the models need"
            f" {exact_gib(ledger.peak_bytes)}:"
            f" {exact_gib(-ledger.free_bytes)} too much"
        )
    for share in ledger.shares:
        missing = ledger.needed_in_share(share) - ledger.share_bytes(share)
        if missing > 0:
            yield (
                f"the share of '{share.service}', {exact_gib(ledger.share_bytes(share))} of GPU"
                f" {ledger.gpu}, is {exact_gib(missing)} too small for its models"
            )
