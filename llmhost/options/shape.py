"""`models[].shape`: the sizes that determine the GPU memory of a model."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import whole

_Tokens = Annotated[int, whole(1, 2**40, "tokens", 32768)]


class Shape(Section):
    """Sizes of a model; declare them only if its file is not on the controller.

    Take them from the length of the file and from `config.json` in the model's repository.
    """

    weights_bytes: Annotated[int, whole(1, 2**50, "bytes", 5_027_783_488)]
    """Bytes of the weights on the GPU. The length of the file is a safe upper bound."""

    cache_values: Annotated[int, whole(0, 2**40, example=73_728)]
    """Values in the KV cache for each token: `2 * num_hidden_layers * num_key_value_heads *
    head_dim`; 0 for an embedding model."""

    hidden_size: Annotated[int, whole(1, 2**24, example=4096)]
    """`hidden_size` of config.json."""

    vocabulary_size: Annotated[int, whole(0, 2**28, example=151_936)]
    """`vocab_size` of config.json; 0 for an embedding model."""

    window_cache_values: Annotated[int, whole(0, 2**40, example=36_864)] = 0
    """As `cache_values`, for layers with sliding-window attention, which keep only `window_tokens`
    tokens. Do not count them in `cache_values`."""

    window_tokens: Annotated[int, whole(0, 2**40, "tokens", 4096)] = 0
    """Length of the sliding window."""

    trained_context_tokens: _Tokens | None = None
    """Maximum context in training (`max_position_embeddings`)."""

    parameters: Annotated[int, whole(1, 2**50, "weights", 8_190_735_360)] | None = None
    """Number of weights in `weights_bytes`; `llmhost vram` needs it to propose other
    quantizations."""

    layers: Annotated[int, whole(1, 2**16, "layers", 36)] | None = None
    """`num_hidden_layers`; an engine group can be divided into at most as many stages."""

    attention_heads: Annotated[int, whole(1, 2**16, "heads", 32)] | None = None
    """`num_attention_heads`; the GPUs that compute a layer together must divide them."""

    kv_heads: Annotated[int, whole(1, 2**16, "heads", 8)] | None = None
    """`num_key_value_heads`; 1 for latent attention (`kv_lora_rank`). If more GPUs than
    that compute a layer together, each has the cache of one head."""

    blocks: Annotated[int, whole(1, 2**24, "blocks", 76)] | None = None
    """`intermediate_size` divided by the length of a block of quantized weights (`group_size`, or
    the second number of `weight_block_size`); the GPUs that compute a layer together must divide
    it."""

    adapter_values: Annotated[int, whole(1, 2**50, example=3_040_000)] | None = None
    """Values that vLLM reserves for an adapter of rank 1, whatever it changes: inputs and outputs
    of all matrices. For a dense model: `num_hidden_layers * (7 * hidden_size + 2 * head_dim *
    (num_attention_heads + num_key_value_heads) + 3 * intermediate_size) + 2 * (vocab_size +
    hidden_size)`; with experts, `3 * experts * (hidden_size + moe_intermediate_size) +
    hidden_size + experts` in each layer instead of `3 * (hidden_size + intermediate_size)`. Without
    it, several times as much is counted."""
