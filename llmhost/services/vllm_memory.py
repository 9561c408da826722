"""GPU memory of vLLM, which reserves a fraction of the GPU; its cache gets what is left of it.

Read in vLLM 0.32: `determine_available_memory` (vllm/v1/worker/gpu_worker.py),
`check_enough_kv_cache_memory` (vllm/v1/core/kv_cache_utils.py) and the defaults in
vllm/engine/arg_utils.py.
"""

from llmhost.models.lora_values import values_of
from llmhost.models.memory import Memory, Use, cache_bytes, weights_bytes
from llmhost.options.shape import Shape

_NON_TORCH_BYTES = 200 * 2**20
"""Libraries and attention backends: 0.16 and 0.20 GiB in logs
(https://github.com/vllm-project/vllm/pull/12126, https://github.com/vllm-project/vllm/pull/14447).
"""

_FORWARD_BYTES = 28
"""For each hidden value of each token of a batch: two rows of hidden values, and three as wide as
the feed-forward layer, which is up to four times as wide, in 16 bits."""

_SAMPLER_BYTES = 40
"""For each logit of each request: its copies in 32 bits, sorted, and their indices. With 256
requests that is 1.22 GiB for Llama-3-8B, against 1.26 GiB in a log
(https://github.com/vllm-project/vllm/pull/10511)."""

_GRAPH_BYTES = 20 * 2**20
"""For each captured CUDA graph: 1.62 GiB for 86 in a log
(https://github.com/vllm-project/vllm/pull/39559)."""

_GRAPH_SIZES = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
"""Sizes of batches that graphs are captured for (vllm/config/vllm.py, `_set_cudagraph_sizes`)."""

_ADAPTER_BYTES = 2
"""For each value of an adapter: it has the type of the model, which has 16 bits unless it is loaded
with more (vllm/config/lora.py, `lora_dtype`)."""


def vllm_memory(shape: Shape, use: Use, *, graphs: bool = True) -> Memory:
    """The minimum to start: the cache must hold one request of full length. The rest of the
    fraction is cache for other requests."""
    batch = min(_batch_tokens(use.gpu_bytes), use.context_tokens * use.parallel)
    forward = batch * shape.hidden_size * _FORWARD_BYTES
    sampler = use.parallel * shape.vocabulary_size * _SAMPLER_BYTES
    return Memory(
        weights_bytes(shape, use) + _adapter_bytes(shape, use),
        cache_bytes(shape, use, shape.window_tokens + batch),
        _NON_TORCH_BYTES + max(forward, sampler) + graphs * _graph_bytes(use),
    )


def _batch_tokens(gpu_bytes: int) -> int:
    """vLLM's default of `max_num_batched_tokens` for a server."""
    if gpu_bytes >= 160 * 2**30:
        return 16384
    return 8192 if gpu_bytes >= 70 * 2**30 else 2048


def _adapter_bytes(shape: Shape, use: Use) -> int:
    """Room for adapters. GPUs that compute a layer together divide only one side of its matrices
    (vllm/lora/layers/base_linear.py, `create_lora_weights`), and nothing of it is subtracted."""
    whole = values_of(shape) * use.adapter_rank * _ADAPTER_BYTES
    return -(-whole * use.tensor // use.gpus)


def _graph_bytes(use: Use) -> int:
    """Graphs of mixed batches have up to two tokens for each request, those of decoding up to one.
    With adapters each is captured with and without them (vllm/v1/cudagraph_dispatcher.py,
    `_get_lora_cases`)."""
    mixed = [size for size in _GRAPH_SIZES if size <= 2 * use.parallel]
    decoding = [size for size in mixed if size <= use.parallel]
    captured = len(mixed) + len(decoding)
    return (2 * captured if use.adapter_rank else captured) * _GRAPH_BYTES
