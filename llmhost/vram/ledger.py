"""The ledger: what the models take of each GPU's memory, and whether it suffices.

It only adds up: what a model takes is for its engine to say (`Service.memory`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmhost.models.memory import Estimate, Memory, Use
from llmhost.options.shape import Shape
from llmhost.units import exact_gib


@dataclass(frozen=True)
class Load:
    """One model on one GPU, or its part on one of several.

    `measured_bytes`, seen on real hardware, outweighs every estimate; without it there must be a
    shape. A model that is not resident is loaded when asked for, in place of the one before.
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
        """As its engine takes it; of a measured model the parts are not known."""
        if self.shape is None or self.measured_bytes is not None:
            return Memory()
        return self.estimate(self.shape, self.use)

    @property
    def total_bytes(self) -> int:
        """All of it, or what was measured."""
        if self.measured_bytes is not None:
            return -(-self.measured_bytes // self.use.gpus)
        return self.memory.total_bytes

    def with_context(self, tokens: int) -> "Load":
        """The same with another context."""
        return replace(self, use=replace(self.use, context_tokens=tokens))


@dataclass(frozen=True)
class GpuShare:
    """A service that takes a fixed fraction of its GPU's whole memory, as vLLM does, and runs its
    models inside; `beside_bytes` come on top of the fraction."""

    service: str
    gpu: int
    fraction: float
    beside_bytes: int = 0


@dataclass(frozen=True)
class Ledger:
    """One GPU with everything that runs on it. Sizes in bytes."""

    gpu: int
    total_bytes: int
    reserve_bytes: int
    loads: tuple[Load, ...]
    shares: tuple[GpuShare, ...] = ()

    @property
    def limit_bytes(self) -> int:
        """What the models may use."""
        return self.total_bytes - self.reserve_bytes

    def at_peak(self) -> list[tuple[str, int]]:
        """What is in use when the most is in use, by name: shares, resident models, and of each
        service the largest model that is loaded on demand."""
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
        """The most that is in use at one time."""
        return sum(size for _, size in self.at_peak())

    @property
    def free_bytes(self) -> int:
        """What is left at the peak; negative if the plan does not fit."""
        return self.limit_bytes - self.peak_bytes

    @property
    def unshared(self) -> tuple[Load, ...]:
        """Models outside of all shares."""
        services = {share.service for share in self.shares}
        return tuple(load for load in self.loads if load.service not in services)

    @property
    def fits(self) -> bool:
        """Whether the peak is within the limit, and every share holds its models."""
        return self.free_bytes >= 0 and all(
            self.needed_in_share(share) <= self.share_bytes(share) for share in self.shares
        )

    def share_bytes(self, share: GpuShare) -> int:
        """Size of a share, with what the service takes beside its fraction."""
        return int(share.fraction * self.total_bytes) + share.beside_bytes

    def needed_in_share(self, share: GpuShare) -> int:
        """Least size of a share."""
        loads = [load for load in self.loads if load.service == share.service]
        return share.beside_bytes + sum(load.total_bytes for load in loads)


def shortfalls(ledger: Ledger) -> Iterator[str]:
    """What does not fit and by how much; nothing if everything does."""
    if ledger.free_bytes < 0:
        yield (
            f"GPU {ledger.gpu} has {exact_gib(ledger.total_bytes)}, of which"
            f" {exact_gib(ledger.limit_bytes)} may be used, and the models take"
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
