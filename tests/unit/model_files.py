"""Model files for tests: true headers over sparse data, written by the `gguf` package."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFType, GGUFWriter, Keys
from gguf.constants import GGML_QUANT_SIZES

Tensors = dict[str, tuple[tuple[int, ...], Kind]]
"""Shapes as PyTorch writes them (slowest dimension first), and types."""


def write_gguf(
    path: Path, tensors: Tensors, metadata: Mapping[str, Any], architecture: str = "llama"
) -> Path:
    """A GGUF with this header; the weights are a hole in the file."""
    writer = GGUFWriter(path, architecture)
    for key, value in metadata.items():
        _add(writer, key, value)
    for name, (shape, kind) in tensors.items():
        block, size = GGML_QUANT_SIZES[kind]
        rows, row = shape[:-1], shape[-1] // block * size
        size = int(np.prod(rows)) * row
        writer.add_tensor_info(name, (*rows, row), np.dtype(np.uint8), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + _data_size(tensors))
    return path


def write_lora(path: Path, weights: Mapping[str, np.ndarray], alpha: float = 8.0) -> Path:
    """A LoRA adapter of a llama with these values."""
    writer = GGUFWriter(path, "llama")
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    for name, values in weights.items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def lora_pair(
    name: str, inputs: int = 64, outputs: int = 64, scale: float = 1
) -> dict[str, np.ndarray]:
    """Matrices of rank 4 for one tensor, at random; the second is multiplied by `scale`."""
    random = np.random.default_rng(1)
    return {
        f"{name}.lora_a": random.standard_normal((4, inputs)),
        f"{name}.lora_b": random.standard_normal((outputs, 4)) * scale + 0,  # no negative zero
    }


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def _data_size(tensors: Tensors) -> int:
    """Every tensor starts at a multiple of 32, and so may the first."""
    size = 32
    for shape, kind in tensors.values():
        block, bytes_ = GGML_QUANT_SIZES[kind]
        size += -(-int(np.prod(shape)) // block * bytes_ // 32) * 32 + 32
    return size


def sizes(
    layers: int, hidden: int, heads: int, kv_heads: int, context: int, architecture: str = "llama"
) -> dict[str, Any]:
    """The metadata that the sizes come from."""
    values = {
        "block_count": layers,
        "embedding_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "context_length": context,
    }
    return {f"{architecture}.{key}": value for key, value in values.items()}


def decoder(
    recipe: str,
    *,
    layers: int,
    hidden: int,
    feed_forward: int,
    kv_size: int,
    vocabulary: int,
    tied: bool = False,
    biased: bool = False,
) -> Tensors:
    """Tensors of a Llama- or Qwen2-like model as llama-quantize lays them out.

    The `_M` recipes give the values and the down projections of some layers six bits
    (src/llama-quant.cpp, `use_more_bits`).
    """
    usual = {"Q4_K_M": Kind.Q4_K, "Q5_K_M": Kind.Q5_K, "Q8_0": Kind.Q8_0}[recipe]
    best = Kind.Q8_0 if recipe == "Q8_0" else Kind.Q6_K
    tensors: Tensors = {"token_embd.weight": ((vocabulary, hidden), best if tied else usual)}
    if not tied:
        tensors["output.weight"] = ((vocabulary, hidden), best)
    tensors["output_norm.weight"] = ((hidden,), Kind.F32)
    for layer in range(layers):
        eighth = layers // 8
        more = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
        careful = best if more else usual
        parts: Tensors = {
            "attn_q": ((hidden, hidden), usual),
            "attn_k": ((kv_size, hidden), usual),
            "attn_v": ((kv_size, hidden), careful),
            "attn_output": ((hidden, hidden), usual),
            "ffn_gate": ((feed_forward, hidden), usual),
            "ffn_up": ((feed_forward, hidden), usual),
            "ffn_down": ((hidden, feed_forward), careful),
            "attn_norm": ((hidden,), Kind.F32),
            "ffn_norm": ((hidden,), Kind.F32),
        }
        tensors |= {f"blk.{layer}.{name}.weight": part for name, part in parts.items()}
        if biased:
            for part, size in {"attn_q": hidden, "attn_k": kv_size, "attn_v": kv_size}.items():
                tensors[f"blk.{layer}.{part}.bias"] = ((size,), Kind.F32)
    return tensors


def write_safetensors(path: Path, shape: tuple[int, ...] = (4, 8)) -> Path:
    """One F16 tensor."""
    size = int(np.prod(shape)) * 2
    header = f'{{"a":{{"dtype":"F16","shape":{list(shape)},"data_offsets":[0,{size}]}}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    return path
