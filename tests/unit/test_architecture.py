"""From metadata to sizes: figures of public models, and what can not be told."""

import json
from io import BytesIO
from math import prod
from typing import Any

import pytest
from gguf.constants import MODEL_ARCH_NAMES
from hypothesis import given
from hypothesis import strategies as st

from llmhost.models.architecture import CACHED, ENCODERS, UNSIZED, shape_of_config, shape_of_gguf
from llmhost.models.gguf import Gguf, GgufError, Tensor
from llmhost.models.safetensors import TensorTotals, read_safetensors
from tests.unit.model_files import sizes

# Architectures that are no language models: parts of pictures and sounds.
PARTS = {"clip", "wavtokenizer-dec"}


def described(architecture: str, *tensors: Tensor, **metadata: Any) -> Gguf:
    """A file whose architecture's keys have `__` for a dot."""
    keys = {f"{architecture}.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return Gguf({"general.architecture": architecture, **keys}, tensors)


def llama_8b(**metadata: Any) -> Gguf:
    """Llama-3-8B, from its config.json."""
    table = Tensor("token_embd.weight", (4096, 128_256), "Q4_K", 0, 295_501_824)
    output = Tensor("output.weight", (4096, 128_256), "Q6_K", 0, 430_940_160)
    own = {"general.architecture": "llama", **sizes(32, 4096, 32, 8, 8192)}
    return Gguf({**own, **metadata}, (table, output))


def test_cache_of_llama_3_8b_takes_128_kib_a_token() -> None:
    shape = shape_of_gguf(llama_8b())
    assert shape.cache_values * 2 == 128 * 1024
    assert shape.window_cache_values == 0
    assert shape.trained_context_tokens == 8192
    assert (shape.vocabulary_size, shape.hidden_size) == (128_256, 4096)


def test_table_of_the_input_layer_stays_in_main_memory() -> None:
    model = llama_8b()
    assert shape_of_gguf(model).weights_bytes == 430_940_160
    tied = Gguf(model.metadata, model.tensors[:1])
    assert shape_of_gguf(tied).weights_bytes == 295_501_824


def test_heads_may_differ_by_layer() -> None:
    model = described(
        "openelm",
        block_count=3,
        embedding_length=1280,
        attention__head_count=[12, 16, 20],
        attention__head_count_kv=[3, 4, 5],
        attention__key_length=64,
        attention__value_length=64,
    )
    assert shape_of_gguf(model).cache_values == (3 + 4 + 5) * 128


def test_sliding_layers_of_gemma_3_are_counted_apart() -> None:
    """Gemma-3-12B: 48 layers, every sixth without a window."""
    gemma: dict[str, Any] = {
        "block_count": 48,
        "embedding_length": 3840,
        "attention__head_count": 16,
        "attention__head_count_kv": 8,
        "attention__key_length": 256,
        "attention__value_length": 256,
        "attention__sliding_window": 1024,
    }
    shape = shape_of_gguf(described("gemma3", **gemma))
    assert (shape.cache_values, shape.window_cache_values) == (8 * 8 * 512, 40 * 8 * 512)
    assert shape.window_tokens == 1024
    pattern = [True, False] * 24
    own = shape_of_gguf(described("gemma3", **gemma, attention__sliding_window_pattern=pattern))
    assert (own.cache_values, own.window_cache_values) == (24 * 8 * 512, 24 * 8 * 512)


def test_unused_window_saves_nothing() -> None:
    """Phi-3 and Qwen2 declare a window that llama.cpp does not use."""
    shape = shape_of_gguf(llama_8b(**{"llama.attention.sliding_window": 2047}))
    assert (shape.cache_values, shape.window_cache_values) == (65536, 0)


def test_latent_attention_keeps_one_vector_a_layer() -> None:
    """DeepSeek-V2-Lite: 27 layers; files converted before 2025 have a key for each head."""
    lite = {"block_count": 27, "embedding_length": 2048, "attention__head_count": 16}
    latent = described(
        "deepseek2",
        **lite,
        attention__head_count_kv=1,
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
    )
    assert shape_of_gguf(latent).cache_values == 27 * 576
    old = described(
        "deepseek2",
        **lite,
        attention__head_count_kv=16,
        attention__key_length=192,
        attention__value_length=128,
    )
    assert shape_of_gguf(old).cache_values == 27 * 16 * (192 + 128)


def test_encoder_keeps_nothing() -> None:
    shape = shape_of_gguf(described("bert", block_count=12, embedding_length=384))
    assert (shape.cache_values, shape.vocabulary_size, shape.hidden_size) == (0, 0, 384)
    without_mask = shape_of_gguf(llama_8b(**{"llama.attention.causal": False}))
    assert without_mask.cache_values == 0


def test_every_architecture_of_llama_cpp_is_sorted() -> None:
    """Fails when a new `gguf` package knows more: look its memory up and add it to a set."""
    assert set(MODEL_ARCH_NAMES.values()) == CACHED | ENCODERS | UNSIZED | PARTS
    assert not CACHED & ENCODERS | CACHED & UNSIZED | ENCODERS & UNSIZED


REFUSED = {
    "unknown": (described("hal9000"), "unsupported architecture 'hal9000'"),
    "recurrent": (described("mamba", block_count=3), "architecture 'mamba', whose memory"),
    "adapter": (llama_8b(**{"general.type": "adapter"}), "is an adapter, not a model"),
    "part": (llama_8b(**{"split.count": 3}), "is one of 3 parts"),
    "no layers": (described("llama", embedding_length=8), "has no block_count"),
    "no width": (
        described("llama", block_count=8, attention__head_count=4),
        "has no embedding_length",
    ),
    "zero heads": (llama_8b(**{"llama.attention.head_count_kv": 0}), "attention heads"),
    "no heads": (described("llama", block_count=8, embedding_length=8), "attention heads"),
    "absurd layers": (described("llama", block_count=2**40), "claims 1099511627776 layers"),
    "heads of some layers": (
        llama_8b(**{"llama.attention.head_count_kv": [8, 8]}),
        "does not have a number for each layer",
    ),
    "pattern": (
        described(
            "gemma3",
            block_count=6,
            embedding_length=8,
            attention__head_count=2,
            attention__sliding_window=8,
            attention__sliding_window_pattern="x",
        ),
        "sliding-window pattern",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_told_is_refused_with_a_sentence(case: str) -> None:
    model, expected = REFUSED[case]
    with pytest.raises(GgufError, match=expected):
        shape_of_gguf(model)


VALUES = st.one_of(
    st.integers(-(2**63), 2**64), st.booleans(), st.text(max_size=3), st.floats(), st.just([1, 2])
)


@given(st.dictionaries(st.sampled_from(sorted(sizes(1, 1, 1, 1, 1))), VALUES))
def test_any_metadata_is_sized_or_refused(metadata: dict[str, Any]) -> None:
    try:
        shape = shape_of_gguf(llama_8b(**metadata))
    except GgufError:
        return
    assert shape.weights_bytes == 430_940_160


QWEN3_8B = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 4096,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
}


def test_config_of_transformers_tells_the_same() -> None:
    shape = shape_of_config(QWEN3_8B, TensorTotals(8_190_735_360, 16_381_470_720))
    assert shape.cache_values == 2 * 36 * 8 * 128
    assert shape.weights_bytes == 16_381_470_720
    assert shape.trained_context_tokens == 40_960
    inside = shape_of_config({"model_type": "vision", "text_config": QWEN3_8B}, TensorTotals(1, 2))
    assert inside.cache_values == shape.cache_values


def test_config_without_grouped_heads_has_as_many_as_it_attends_with() -> None:
    config = {key: QWEN3_8B[key] for key in QWEN3_8B if key not in {"num_key_value_heads"}}
    assert shape_of_config(config, TensorTotals(1, 2)).cache_values == 2 * 36 * 32 * 128


def test_config_of_latent_attention() -> None:
    config = QWEN3_8B | {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert shape_of_config(config, TensorTotals(1, 2)).cache_values == 36 * 576


def test_latent_attention_of_minicpm3_is_cached_for_each_head() -> None:
    """vllm/model_executor/models/minicpm3.py, MiniCPM3Attention: keys, and values filled up to
    their size. Its numbers are those of openbmb/MiniCPM3-4B."""
    config = QWEN3_8B | {"model_type": "minicpm3", "num_hidden_layers": 62, "kv_lora_rank": 256}
    config |= {"num_attention_heads": 40, "num_key_value_heads": 40, "qk_rope_head_dim": 32}
    shape = shape_of_config(config | {"qk_nope_head_dim": 64}, TensorTotals(1, 2))
    assert shape.cache_values == 2 * 62 * 40 * 96 and shape.kv_heads == 40


@pytest.mark.parametrize(
    ("names", "heads"),
    [
        ({"num_kv_heads": 8, "new_decoder_architecture": True, "multi_query": True}, 8),
        ({"multi_query": True, "new_decoder_architecture": False}, 1),
        ({"n_head_kv": 4}, 4),
        ({"num_attention_groups": 2}, 2),
    ],
)
def test_config_has_other_names_for_grouped_heads(names: dict[str, Any], heads: int) -> None:
    """vllm/transformers_utils/model_arch_config_convertor.py: Falcon 40B and 7B, Step."""
    config = {key: QWEN3_8B[key] for key in QWEN3_8B if key != "num_key_value_heads"}
    shape = shape_of_config(config | names, TensorTotals(1, 2))
    assert shape.kv_heads == heads and shape.cache_values == 2 * 36 * heads * 128


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
OF_GROUPS = {"config_groups": {"group_0": {"weights": {"strategy": "group", "group_size": 128}}}}
OF_BLOCKS = {
    "config_groups": {"g": {"weights": {"strategy": "block", "block_structure": [128, 128]}}}
}


@pytest.mark.parametrize(
    ("quantization", "tensors", "blocks"),
    [
        # Qwen3-4B-FP8
        (FP8, {"mlp.down_proj.weight": ("F8_E4M3", (2560, 9728))}, 76),
        (FP8, {"mlp.down_proj.weight": ("F8_E4M3", (2560, 9700))}, 1),
        (FP8, {"mlp.down_proj.weight": ("BF16", (2560, 9728))}, 9728),
        # Blocks of experts are cut down to 32: Qwen3-30B-A3B-FP8
        (FP8, {"mlp.experts.7.down_proj.weight": ("F8_E4M3", (2048, 768))}, 24),
        (OF_BLOCKS, {"mlp.experts.7.down_proj.weight": ("F8_E4M3", (2048, 768))}, 6),
        # DeepSeek-V3: dense layers, experts, shared experts
        (
            FP8,
            {
                "mlp.down_proj.weight": ("F8_E4M3", (4096, 18432)),
                "mlp.experts.0.down_proj.weight": ("F8_E4M3", (4096, 2048)),
                "mlp.shared_experts.down_proj.weight": ("F8_E4M3", (4096, 2048)),
                "self_attn.o_proj.weight": ("F8_E4M3", (4096, 16384)),
            },
            16,
        ),
        # Qwen2.5-14B as W4A16 and as AWQ
        (
            OF_GROUPS,
            {
                "mlp.down_proj.weight_packed": ("I32", (5120, 1728)),
                "mlp.down_proj.weight_scale": ("BF16", (5120, 108)),
            },
            108,
        ),
        ({"quant_method": "awq"}, {"mlp.down_proj.scales": ("F16", (108, 5120))}, 108),
        # A scale for each row, or for all
        ({}, {"mlp.down_proj.weight_scale": ("BF16", (5120, 1))}, None),
        (FP8, {"visual.blocks.0.mlp.down_proj.weight": ("BF16", (1280, 3420))}, None),
        ([], {"mlp.up_proj.weight": ("BF16", (64, 64))}, None),
        ({"weight_block_size": "128"}, {"mlp.down_proj.weight": ("F8_E4M3", (8, 256))}, 256),
        ({"config_groups": [1]}, {"mlp.down_proj.weight": ("F8_E4M3", (8, 256))}, 256),
    ],
)
def test_gpus_divide_whole_blocks_of_weights(
    quantization: object, tensors: dict[str, tuple[str, tuple[int, ...]]], blocks: int | None
) -> None:
    """For each of them, `validate_fp8_block_shape`, `refine_fp8_moe_block_shape` or
    `verify_group_size_divides_partition` of vLLM 0.32 accepts the divisors of this number."""
    header, end = {}, 0
    for name, (kind, sizes_of) in tensors.items():
        size = prod(sizes_of)  # as if all types had a byte
        described = {"dtype": kind, "shape": sizes_of, "data_offsets": [end, end + size]}
        header[f"model.layers.3.{name}"] = described
        end += size
    text = json.dumps(header).encode()
    stream = BytesIO(len(text).to_bytes(8, "little") + text)
    weights = read_safetensors(stream, 8 + len(text) + end)
    config = QWEN3_8B | {"quantization_config": quantization}
    assert shape_of_config(config, weights).blocks == blocks


def test_config_of_encoders_keeps_nothing() -> None:
    for change in ({"model_type": "xlm-roberta"}, {"use_bidirectional_attention": True}):
        assert shape_of_config(QWEN3_8B | change, TensorTotals(1, 2)).cache_values == 0


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "without layers, heads and sizes"),
        (QWEN3_8B | {"num_attention_heads": 0, "num_key_value_heads": 0}, "without layers"),
        (QWEN3_8B | {"hidden_size": "wide"}, "without layers"),
        (QWEN3_8B | {"mamba_d_state": 128}, "has a recurrent state"),
    ],
)
def test_config_that_does_not_tell_is_refused(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        shape_of_config(config, TensorTotals(1, 2))
