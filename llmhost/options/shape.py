"""`models[].shape`: the sizes from which the GPU memory of a model is computed."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import whole

_Tokens = Annotated[int, whole(1, 2**40, "tokens", 32768)]


class Shape(Section):
    """Sizes of one model; read from its file, or declared if the file is not on the controller.

    They come from the file's length and from `config.json` of the model's repository.
    """

    weights_bytes: Annotated[int, whole(1, 2**50, "bytes", 5_027_783_488)]
    """Bytes of the weights on the GPU. The length of the file is a safe upper bound."""

    cache_values: Annotated[int, whole(0, 2**40, example=73_728)]
    """Values kept in the KV cache for each token: `2 * num_hidden_layers * num_key_value_heads *
    head_dim`; 0 for a model that only embeds."""

    hidden_size: Annotated[int, whole(1, 2**24, example=4096)]
    """`hidden_size` of config.json."""

    vocabulary_size: Annotated[int, whole(0, 2**28, example=151_936)]
    """`vocab_size` of config.json; 0 for a model that only embeds."""

    window_cache_values: Annotated[int, whole(0, 2**40, example=36_864)] = 0
    """The same as `cache_values` for layers with sliding-window attention, which keep only
    `window_tokens` tokens; they do not count in `cache_values`."""

    window_tokens: Annotated[int, whole(0, 2**40, "tokens", 4096)] = 0
    """Length of the sliding window in tokens."""

    trained_context_tokens: _Tokens | None = None
    """Longest context that the model was trained for (`max_position_embeddings`)."""

    parameters: Annotated[int, whole(1, 2**50, "weights", 8_190_735_360)] | None = None
    """Number of weights in `weights_bytes`; with it other quantizations can be proposed."""
