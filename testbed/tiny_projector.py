"""Generates a projector for `tiny_model`: real GGUF, Gemma 3's as llama.cpp reads it, untrained.

With it the model takes pictures, and says of them what its weights say.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, VisionProjectorType
from numpy.typing import NDArray

from testbed import tiny_model

_SEED = 20261129
_WIDTH, _HEADS, _HIDDEN, _SIDE, _PATCH = 32, 2, 64, 64, 8

Tensor = NDArray[np.float32]


def write(path: Path) -> None:
    writer = GGUFWriter(path, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(VisionProjectorType.GEMMA3)
    writer.add_vision_use_gelu(True)
    writer.add_vision_image_size(_SIDE)
    writer.add_vision_patch_size(_PATCH)
    writer.add_vision_embedding_length(_WIDTH)
    writer.add_vision_feed_forward_length(_HIDDEN)
    writer.add_vision_projection_dim(tiny_model.WIDTH)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(_HEADS)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    for name, tensor in _tensors():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors() -> Iterator[tuple[str, Tensor]]:
    random = np.random.RandomState(_SEED)

    def draw(*shape: int) -> Tensor:
        return random.uniform(-0.5, 0.5, shape).astype(np.float32)

    sizes = {
        **{f"attn_{part}": (_WIDTH, _WIDTH) for part in ("q", "k", "v", "out")},
        "ffn_up": (_HIDDEN, _WIDTH),
        "ffn_down": (_WIDTH, _HIDDEN),
    }
    yield "v.patch_embd.weight", draw(_WIDTH, 3, _PATCH, _PATCH)
    yield "v.patch_embd.bias", draw(_WIDTH)
    yield "v.position_embd.weight", draw((_SIDE // _PATCH) ** 2, _WIDTH)
    for part, (rows, columns) in sizes.items():
        yield f"v.blk.0.{part}.weight", draw(rows, columns)
        yield f"v.blk.0.{part}.bias", draw(rows)
    for norm in ("v.blk.0.ln1", "v.blk.0.ln2", "v.post_ln"):
        yield f"{norm}.weight", np.ones(_WIDTH, np.float32)
        yield f"{norm}.bias", np.zeros(_WIDTH, np.float32)
    yield "mm.soft_emb_norm.weight", np.ones(_WIDTH, np.float32)
    yield "mm.input_projection.weight", draw(_WIDTH, tiny_model.WIDTH)
