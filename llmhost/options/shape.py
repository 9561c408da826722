"""`models[].shape`: what must be known of a model to tell how much GPU memory it takes."""

from pydantic import Field

from llmhost.options.base import Section


class Shape(Section):
    """Sizes of one model; read from its file, or declared where the file is only a reference.

    Where they come from: the file's length, and `config.json` of the model's repository.
    """

    weights_bytes: int = Field(ge=1)
    """Bytes of the weights on the GPU. The length of the file is a safe upper bound."""

    cache_values: int = Field(ge=0)
    """Values kept in the KV cache for each token: `2 * num_hidden_layers * num_key_value_heads *
    head_dim`; 0 for a model that only embeds."""

    hidden_size: int = Field(ge=1)
    """`hidden_size` of config.json."""

    vocabulary_size: int = Field(ge=0)
    """`vocab_size` of config.json; 0 for a model that only embeds."""

    window_cache_values: int = Field(default=0, ge=0)
    """The same as `cache_values` for layers with sliding-window attention, which keep only
    `window_tokens` tokens; they do not count in `cache_values`."""

    window_tokens: int = Field(default=0, ge=0)
    """Length of the sliding window in tokens."""

    trained_context_tokens: int | None = Field(default=None, ge=1)
    """Longest context the model was trained for (`max_position_embeddings`)."""

    parameters: int | None = Field(default=None, ge=1)
    """How many weights `weights_bytes` holds; with it other quantisations can be proposed."""
