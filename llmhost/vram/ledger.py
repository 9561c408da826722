"""The ledger: what the models take of each GPU's memory, and whether it suffices.

llama.cpp and Ollama are assumed to run with flash attention (their templates switch it on):
without it the work buffer grows with the context.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmhost.models.quantization import CACHE_BYTES
from llmhost.options.shape import Shape
from llmhost.units import MIB, exact_gib

# Tokens of a prompt that llama.cpp works on at once (`n_ubatch`).
BATCH_TOKENS = 512

# llama.cpp rounds the cache of sliding layers up to this (src/llama-kv-cache-iswa.cpp).
_WINDOW_STEP = 256

# What CUDA takes in each process for itself, before any buffer: 451 to 456 MiB on an RTX 4090
# (https://github.com/ggml-org/llama.cpp/pull/15860, column "unaccounted").
CUDA_BYTES = 456 * MIB


@dataclass(frozen=True)
class Load:
    """One model in a process of its own on one GPU, or its part on one of `parts` GPUs, over
    which engines spread weights and cache evenly.

    `measured_bytes`, seen on real hardware, outweighs every estimate; without it there must be a
    shape. A model that is not resident is loaded when asked for, in place of the one before.
    """

    model: str
    service: str
    gpu: int
    shape: Shape | None
    context_tokens: int
    parallel: int = 1
    cache_type: str = "f16"
    resident: bool = True
    adapter_bytes: int = 0
    measured_bytes: int | None = None
    parts: int = 1

    @property
    def weights_bytes(self) -> int:
        """Weights and adapter."""
        whole = self.shape.weights_bytes + self.adapter_bytes if self.shape else 0
        return -(-whole // self.parts)

    @property
    def cache_bytes(self) -> int:
        """Keys and values of every token of every parallel request."""
        if self.shape is None:
            return 0
        window = min(self.context_tokens, _rounded(self.shape.window_tokens + BATCH_TOKENS))
        values = self.shape.cache_values * self.context_tokens
        values += self.shape.window_cache_values * window
        return values * self.parallel * CACHE_BYTES[self.cache_type] // 32 // self.parts

    @property
    def work_bytes(self) -> int:
        """CUDA's own memory and the work buffer: a row of logits and a row of hidden values, four
        bytes each, for every token of a batch
        (https://github.com/ikawrakow/ik_llama.cpp/pull/1560). A log of Qwen2.5-3B says 300.75 MiB,
        and so does this (https://github.com/SciSharp/LLamaSharp/issues/1099). llama.cpp since
        https://github.com/ggml-org/llama.cpp/pull/23861 takes less."""
        if self.shape is None:
            return 0
        row = self.shape.vocabulary_size + self.shape.hidden_size
        return CUDA_BYTES + BATCH_TOKENS * row * 4

    @property
    def total_bytes(self) -> int:
        """All of it, or what was measured."""
        if self.measured_bytes is not None:
            return -(-self.measured_bytes // self.parts)
        return self.weights_bytes + self.cache_bytes + self.work_bytes


def _rounded(tokens: int) -> int:
    return -(-tokens // _WINDOW_STEP) * _WINDOW_STEP


@dataclass(frozen=True)
class Share:
    """A service that takes a fixed fraction of its GPU's whole memory, as vLLM does, and runs its
    models inside."""

    service: str
    gpu: int
    fraction: float


@dataclass(frozen=True)
class Ledger:
    """One GPU with everything that runs on it. Sizes in bytes."""

    gpu: int
    total_bytes: int
    reserve_bytes: int
    loads: tuple[Load, ...]
    shares: tuple[Share, ...] = ()

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

    def share_bytes(self, share: Share) -> int:
        """Size of a share."""
        return int(share.fraction * self.total_bytes)

    def needed_in_share(self, share: Share) -> int:
        """Least size of a share: vLLM does not start unless its cache holds one request of full
        length."""
        loads = [replace(load, parallel=1) for load in self.loads if load.service == share.service]
        return sum(load.total_bytes for load in loads)


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
