"""GPU memory of llama.cpp, which Ollama uses too.

The estimate assumes flash attention: without it the work buffer grows with the context.
"""

from llmhost.models.memory import CUDA_BYTES, Memory, Use, cache_bytes, weights_bytes
from llmhost.options.shape import Shape

BATCH_TOKENS = 512
"""Tokens of a prompt in one batch (`n_ubatch`)."""

_WINDOW_STEP = 256
"""The cache of sliding layers is rounded up to this (src/llama-kv-cache-iswa.cpp)."""


_ROW_BYTES = 80
"""For each hidden value of each token of a batch: 20 rows of 32 bits. With batches of 512 to 8,192
tokens, build 11669 takes 13 for SmolLM2-135M, whose feed-forward layer is 2.7 times as wide as its
hidden one, and two bytes for each token of the context (its mask)."""


def llama_memory(shape: Shape, use: Use, *, whole_texts: bool = False) -> Memory:
    """One process for the model; it allocates the cache of all parallel requests at its start.

    With `whole_texts`, a model that embeds has a batch for the longest text (models/llama.py).
    """
    window = -(-(shape.window_tokens + BATCH_TOKENS) // _WINDOW_STEP) * _WINDOW_STEP
    return Memory(
        weights_bytes(shape, use),
        cache_bytes(shape, use, window) * use.parallel,
        CUDA_BYTES + max(_buffer_bytes(shape), whole_texts * use.embeds * _text_bytes(shape, use)),
    )


def _buffer_bytes(shape: Shape) -> int:
    """A row of logits and a row of hidden values, four bytes each, for every token of a batch
    (https://github.com/ikawrakow/ik_llama.cpp/pull/1560). For Qwen2.5-3B this is 300.75 MiB, as in
    a log (https://github.com/SciSharp/LLamaSharp/issues/1099). llama.cpp uses less since
    https://github.com/ggml-org/llama.cpp/pull/23861."""
    return BATCH_TOKENS * (shape.vocabulary_size + shape.hidden_size) * 4


def _text_bytes(shape: Shape, use: Use) -> int:
    """The same for a batch with the longest text, whose logits are not calculated."""
    return use.context_tokens * (2 * use.context_tokens + _ROW_BYTES * shape.hidden_size)
