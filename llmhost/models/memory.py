"""What a model takes of a GPU's memory. Each engine answers that in its own way."""

from collections.abc import Callable
from dataclasses import dataclass

from llmhost.models.quantization import CACHE_BYTES
from llmhost.options.shape import Shape

CUDA_BYTES = 456 * 2**20
"""What CUDA takes in each process for itself, before any buffer: 451 to 456 MiB on an RTX 4090
(https://github.com/ggml-org/llama.cpp/pull/15860, column "unaccounted")."""


@dataclass(frozen=True)
class Use:
    """How a model is run, on one GPU of `gpu_bytes` or spread evenly over `gpus` of that size."""

    context_tokens: int
    parallel: int = 1
    cache_type: str = "f16"
    adapter_bytes: int = 0
    gpus: int = 1
    gpu_bytes: int = 0


@dataclass(frozen=True)
class Memory:
    """What one GPU holds of a model, in bytes. `work_bytes` is all beside weights and cache."""

    weights_bytes: int = 0
    cache_bytes: int = 0
    work_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.cache_bytes + self.work_bytes


Estimate = Callable[[Shape, Use], Memory]
"""How an engine's memory is worked out."""


def weights_bytes(shape: Shape, use: Use) -> int:
    """One GPU's part of the weights and the adapter."""
    return -(-(shape.weights_bytes + use.adapter_bytes) // use.gpus)


def cache_bytes(shape: Shape, use: Use, window_tokens: int) -> int:
    """One GPU's part of the keys and values of a single request of full length; layers with a
    sliding window keep no more than `window_tokens`."""
    values = shape.cache_values * use.context_tokens
    values += shape.window_cache_values * min(use.context_tokens, window_tokens)
    return values * CACHE_BYTES[use.cache_type] // 32 // use.gpus
