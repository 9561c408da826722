"""From a model's metadata to the sizes that determine its GPU memory.

If an architecture saves memory in ways that only its engine knows (a cache shared by several
layers, a smaller head in sliding layers), these sizes are an upper bound.
"""

from collections.abc import Mapping
from typing import Any

from llmhost.models.blocks import blocks_in
from llmhost.models.gguf import Gguf, GgufError
from llmhost.models.lora_values import values_in
from llmhost.models.safetensors import TensorTotals
from llmhost.options.shape import Shape


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Architectures of llama.cpp (src/llama-arch.cpp) whose cache is keys and values for each token.
CACHED = _names(
    "afmoe apertus arcee arctic baichuan bailingmoe bailingmoe2 bitnet bloom chameleon chatglm"
    " codeshell cogvlm cohere2 command-r dbrx deci deepseek deepseek2 deepseek2-ocr dots1 dream"
    " ernie4_5 ernie4_5-moe exaone exaone-moe exaone4 falcon gemma gemma2 gemma3 gemma3n gemma4"
    " glm4 glm4moe gpt-oss gpt2 gptj gptneox granite granitemoe grok grovemoe hunyuan-dense"
    " hunyuan-moe hunyuan_vl internlm2 jais jais2 llada llada-moe llama llama4 maincoder mimo2"
    " minicpm minicpm3 minimax-m2 mistral3 mistral4 mpt nemotron olmo olmo2 olmoe openelm orion"
    " paddleocr pangu-embedded phi2 phi3 phimoe plamo plamo3 plm qwen qwen2 qwen2moe qwen2vl qwen3"
    " qwen3moe qwen3vl qwen3vlmoe refact rnd1 seed_oss smallthinker smollm3 stablelm starcoder"
    " starcoder2 step35 xverse"
)

# These only embed: they have no cache.
ENCODERS = _names(
    "bert eurobert gemma-embedding jina-bert-v2 jina-bert-v3 llama-embed modern-bert neo-bert"
    " nomic-bert nomic-bert-moe t5encoder"
)

# These have another kind of state, in addition to keys and values or instead of them.
UNSIZED = _names(
    "arwkv7 falcon-h1 glm-dsa granitehybrid jamba kimi-linear lfm2 lfm2moe mamba mamba2 nemotron_h"
    " nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next rwkv6 rwkv6qwen2 rwkv7 t5"
)

# One layer of so many has full attention, the others a window (`set_swa_pattern` in llama.cpp's
# src/models). A file's own `sliding_window_pattern` overrides it.
_WINDOW_PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "olmo2": 4, "gpt-oss": 2}

# llama.cpp keeps the tables of the input layer in main memory (src/llama-model.cpp, `dev_input`).
# Without an output tensor it needs the table on the GPU too.
_INPUT_TABLE = "token_embd.weight"
_OUTPUT = "output.weight"
_LAYER_TABLE = "per_layer_token_embd.weight"

_MOST_LAYERS = 1024

# Latent attention of which vLLM caches keys and values for each head
# (vllm/model_executor/models/minicpm3.py).
_UNCOMPRESSED = ("minicpm3",)

_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "num_attention_groups")

# Suffixes of encoders' `model_type` in Hugging Face's transformers.
_ENCODER_TYPES = ("bert", "roberta", "mpnet")


def shape_of_gguf(gguf: Gguf) -> Shape:
    """Sizes of the model in this file. Raises GgufError if they cannot be determined."""
    check_whole(gguf)
    check_known(gguf)
    if gguf.architecture in UNSIZED:
        raise GgufError(f"has the architecture '{gguf.architecture}', whose memory is unknown")
    everywhere, in_window = _cache_values(gguf)
    tensors = {tensor.name: tensor for tensor in gguf.tensors}
    table = tensors.get(_INPUT_TABLE)
    left_out = {_LAYER_TABLE, _INPUT_TABLE} if _OUTPUT in tensors else {_LAYER_TABLE}
    on_gpu = [tensor for tensor in gguf.tensors if tensor.name not in left_out]
    return Shape(
        weights_bytes=max(1, sum(tensor.size for tensor in on_gpu)),
        cache_values=everywhere,
        window_cache_values=in_window,
        window_tokens=gguf.number("attention.sliding_window") or 0,
        hidden_size=max(1, _needed(gguf, "embedding_length")),
        vocabulary_size=table.shape[-1] if table and not _embeds(gguf) else 0,
        trained_context_tokens=gguf.number("context_length") or None,
        parameters=sum(tensor.values for tensor in on_gpu) or None,
        layers=gguf.number("block_count") or None,
        attention_heads=_same_everywhere(gguf, "attention.head_count"),
    )


def check_whole(gguf: Gguf) -> None:
    """Raise GgufError if the file is not a complete model."""
    if gguf.text("general.type") == "adapter":
        raise GgufError("is an adapter, not a model; set the option adapter of its model")
    parts = gguf.metadata.get("split.count", 1)
    if parts not in (0, 1):
        raise GgufError(f"is one of {parts} parts; join them with `llama-gguf-split --merge`")


def check_known(gguf: Gguf) -> None:
    """Raise GgufError if the architecture is not in these lists of llama.cpp's architectures."""
    if gguf.architecture not in CACHED | ENCODERS | UNSIZED:
        raise GgufError(f"has the unsupported architecture '{gguf.architecture}'")


def _embeds(gguf: Gguf) -> bool:
    causal = gguf.metadata.get(f"{gguf.architecture}.attention.causal", True)
    return gguf.architecture in ENCODERS or causal is False


def _cache_values(gguf: Gguf) -> tuple[int, int]:
    """Values cached for a token: in layers with full attention, and in sliding layers."""
    if _embeds(gguf):
        return 0, 0
    layers = _needed(gguf, "block_count")
    if layers > _MOST_LAYERS:
        raise GgufError(f"is damaged: it claims {layers} layers")
    heads = _for_each_layer(gguf, "attention.head_count", layers)
    kv_heads = _for_each_layer(gguf, "attention.head_count_kv", layers) or heads
    if not sum(kv_heads):
        raise GgufError("has no number of attention heads in its metadata")
    head = _needed(gguf, "embedding_length") // max([1, *heads])
    key, value = gguf.number("attention.key_length"), gguf.number("attention.value_length")
    width = (head if key is None else key) + (head if value is None else value)
    if gguf.number("attention.key_length_mla"):
        # Latent attention: values are made of the keys (ggml-org/llama.cpp, pull request 19067).
        width = _needed(gguf, "attention.key_length")
    sliding = _sliding_layers(gguf, layers)
    in_window = sum(count for layer, count in enumerate(kv_heads) if layer in sliding)
    return (sum(kv_heads) - in_window) * width, in_window * width


def _sliding_layers(gguf: Gguf, layers: int) -> set[int]:
    if not gguf.number("attention.sliding_window"):
        return set()
    period = _WINDOW_PERIODS.get(gguf.architecture, 1)
    pattern = gguf.metadata.get(f"{gguf.architecture}.attention.sliding_window_pattern", period)
    if isinstance(pattern, list):
        return {layer for layer, slides in enumerate(pattern[:layers]) if slides}
    if not isinstance(pattern, int) or pattern < 1:
        raise GgufError("is damaged: its sliding-window pattern is not a number")
    return {layer for layer in range(layers) if layer % pattern < pattern - 1}


def _for_each_layer(gguf: Gguf, key: str, layers: int) -> list[int]:
    """A number for each layer: files have one for all, or a list; empty if there is none."""
    values = gguf.metadata.get(f"{gguf.architecture}.{key}")
    if not isinstance(values, list):
        number = gguf.number(key)
        return [] if number is None else [number] * layers
    numbers = [value for value in values if isinstance(value, int) and value >= 0]
    if len(numbers) != layers:
        raise GgufError(f"is damaged: {key} does not have a number for each layer")
    return numbers


def _same_everywhere(gguf: Gguf, key: str) -> int | None:
    """A number of all layers; None if they differ or if it is unknown."""
    value = gguf.metadata.get(f"{gguf.architecture}.{key}")
    return value if isinstance(value, int) and value > 0 else None


def _needed(gguf: Gguf, key: str) -> int:
    number = gguf.number(key)
    if number is None:
        raise GgufError(f"has no {key} in its metadata")
    return number


def shape_of_config(config: Mapping[str, Any], weights: TensorTotals) -> Shape:
    """Sizes from a `config.json` of Hugging Face's transformers and the weights beside it.

    Raises ValueError, whose text continues "the file", if they cannot be determined.
    """
    inner = config.get("text_config")
    text = {**config, **inner} if isinstance(inner, dict) else config
    if any(key.startswith(("mamba", "ssm_", "linear_", "rwkv")) for key in text):
        raise ValueError("has a recurrent state, whose memory llmhost cannot calculate")
    try:
        encoder = _encodes(text)
        # Several weights in one number: how many there are is not in the files.
        packed = "quantization_config" in config
        return Shape(
            weights_bytes=weights.size,
            cache_values=0 if encoder else _cached_by_config(text),
            hidden_size=text["hidden_size"],
            vocabulary_size=0 if encoder else text["vocab_size"],
            trained_context_tokens=text.get("max_position_embeddings"),
            parameters=None if packed else weights.values or None,
            layers=text.get("num_hidden_layers"),
            attention_heads=text.get("num_attention_heads"),
            kv_heads=1 if _is_compressed(text) else _kv_heads(text) or None,
            blocks=blocks_in(config, weights.divided, text["hidden_size"]),
            adapter_values=values_in(
                weights.matrices, text["hidden_size"], text.get("vocab_size") or 0
            ),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise ValueError("has a config.json without layers, heads and sizes") from None


def _encodes(config: Mapping[str, Any]) -> bool:
    kind = str(config.get("model_type", ""))
    return kind.endswith(_ENCODER_TYPES) or config.get("use_bidirectional_attention") is True


def _cached_by_config(config: Mapping[str, Any]) -> int:
    """Values for a token. DeepSeek's latent attention has one compressed vector for each layer."""
    layers = int(config["num_hidden_layers"])
    if _is_compressed(config):
        return layers * (int(config["kv_lora_rank"]) + int(config["qk_rope_head_dim"]))
    heads = int(config["num_attention_heads"])
    kv_heads = int(_kv_heads(config) or heads)
    head = int(config.get("head_dim") or 0) or int(config["hidden_size"]) // heads
    if config.get("kv_lora_rank"):
        kv_heads, head = heads, int(config["qk_nope_head_dim"]) + int(config["qk_rope_head_dim"])
    if not layers * kv_heads * head:
        raise ValueError("a size is zero")
    return 2 * layers * kv_heads * head


def _is_compressed(config: Mapping[str, Any]) -> bool:
    """Whether the cache has one vector for all heads."""
    return bool(config.get("kv_lora_rank")) and config.get("model_type") not in _UNCOMPRESSED


def _kv_heads(config: Mapping[str, Any]) -> Any:
    """Heads of keys and values, by the names that architectures have for them
    (vllm/transformers_utils/model_arch_config_convertor.py); None if it has none of them."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1  # Falcon's
    return next((config[name] for name in _KV_HEADS if config.get(name)), None)
