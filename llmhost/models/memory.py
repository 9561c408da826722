"""GPU memory of a model. Each engine has its own estimate."""

from collections.abc import Callable
from dataclasses import dataclass

from llmhost.models.quantization import CACHE_BYTES
from llmhost.options.shape import Shape

CUDA_BYTES = 456 * 2**20
"""Memory of CUDA in each process, without buffers: 451 to 456 MiB on an RTX 4090
(https://github.com/ggml-org/llama.cpp/pull/15860, column "unaccounted")."""


@dataclass(frozen=True)
class Use:
    """How a model runs, on one GPU of `gpu_bytes` or distributed evenly over `gpus` of that size,
    of which `tensor` compute each layer together. One that `embeds` reads whole texts, and writes
    none. `adapter_bytes` are files loaded with the weights; `adapter_rank` is the sum of the ranks
    that room is reserved for, whatever the files hold."""

    context_tokens: int
    parallel: int = 1
    cache_type: str = "f16"
    adapter_bytes: int = 0
    adapter_rank: int = 0
    gpus: int = 1
    tensor: int = 1
    embeds: bool = False
    gpu_bytes: int = 0


@dataclass(frozen=True)
class Memory:
    """Memory of a model on one GPU, in bytes. `work_bytes` is everything except weights and
    cache."""

    weights_bytes: int = 0
    cache_bytes: int = 0
    work_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """The sum."""
        return self.weights_bytes + self.cache_bytes + self.work_bytes


Estimate = Callable[[Shape, Use], Memory]
"""An engine's estimate of memory."""


def weights_bytes(shape: Shape, use: Use) -> int:
    """One GPU's part of the weights and the adapter."""
    return -(-(shape.weights_bytes + use.adapter_bytes) // use.gpus)


def cache_bytes(shape: Shape, use: Use, window_tokens: int) -> int:
    """One GPU's part of the keys and values of a single request of full length; layers with a
    sliding window keep at most `window_tokens`. A GPU has the cache of at least one head, so
    several may have the same (vllm/model_executor/layers/linear.py, QKVParallelLinear)."""
    values = shape.cache_values * use.context_tokens
    values += shape.window_cache_values * min(use.context_tokens, window_tokens)
    distinct = min(use.tensor, shape.kv_heads or use.tensor)
    return values * CACHE_BYTES[use.cache_type] * use.tensor // (32 * use.gpus * distinct)
