"""How many values vLLM reserves for adapters, whatever modules they change.

Read in vLLM 0.31 and 0.32: each linear layer, each expert and the tables of words get two matrices,
as wide as their inputs and their outputs, of the largest rank (`_create_lora_modules` in vllm/lora/
model_manager.py, `create_lora_weights` in vllm/lora/layers).
"""

from math import prod

from llmhost.models.safetensors import Matrices
from llmhost.options.shape import Shape

_PACKED = {"I32": 8, "U8": 2}
"""Weights in one number of these types, with 4 bits for each."""

_MOST_FOR_WEIGHTS = 5
"""A matrix of `hidden` x `n` weights has hidden + n values: as many as its weights / hidden, and
(hidden / n) times as many. Experts of public models have an n of at least a quarter of `hidden`:
5120 / 1536 for GLM-4.5, 7168 / 2048 for DeepSeek-V3."""


def values_in(matrices: Matrices, hidden: int, vocabulary: int) -> int | None:
    """Values for a rank of one, from the sizes of a model's tensors; None without matrices.

    It is an upper bound: parts for images count, which vLLM does not adapt by default, and the
    table of words counts twice, which some models lack.
    """
    tables = sum(count for (_, sizes), count in matrices.items() if sizes == (vocabulary, hidden))
    found = sum(count * _values(kind, sizes, hidden) for (kind, sizes), count in matrices.items())
    if found and vocabulary and tables < 2:
        found += vocabulary + hidden
    return found or None


def values_of(shape: Shape) -> int:
    """Values for a rank of one: as declared or found, or else more than public models need."""
    if shape.adapter_values is not None:
        return shape.adapter_values
    # Without a number, the weights may have four bits.
    weights = shape.parameters or 2 * shape.weights_bytes
    return _MOST_FOR_WEIGHTS * weights // shape.hidden_size


def _values(kind: str, sizes: tuple[int, ...], hidden: int) -> int:
    """For all matrices of a tensor. Where experts are in one tensor, two of their matrices may be
    side by side, each with its own inputs; of packed ones, one side is `hidden`."""
    experts = sizes[0] if len(sizes) > 2 else 1
    beside = hidden if len(sizes) > 2 else 0
    if kind in _PACKED:
        return experts * (hidden + beside) + _PACKED[kind] * prod(sizes) // hidden
    return experts * (sum(sizes[-2:]) + beside) if len(sizes) < 4 else 0
