"""Generates a small embedding or reranking model: real GGUF, real BERT.

One layer with weights from a fixed seed: it is untrained, but equal texts have equal vectors, and
different texts different ones. See testbed/tiny_model.py for why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from gguf import GGUFWriter, LlamaFileType, PoolingType, TokenType
from numpy.typing import NDArray

WIDTH = 32
"""Length of its vectors."""

CONTEXT_TOKENS = 256
_SEED = 20261122
_HEADS, _HIDDEN = 2, 64

_CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_CHARACTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789.,?!")
# In GGUF the start of a word is marked with U+2581, and its other parts are not (llama.cpp, gguf-py
# and convert_hf_to_gguf.py, BertModel.set_vocab).
_TOKENS = (*_CONTROL, *(f"\u2581{each}" for each in _CHARACTERS), *_CHARACTERS)

Tensor = NDArray[np.float32]


def write(path: Path, task: Literal["embed", "rerank"]) -> str:
    """Write a model for the task to ``path`` and return its SHA-256."""
    writer = GGUFWriter(path, "bert")
    _describe(writer, task)
    _add_vocabulary(writer)
    for name, tensor in _tensors(task):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _describe(writer: GGUFWriter, task: str) -> None:
    writer.add_name(f"llmhost tiny {task}")
    writer.add_license("cc0-1.0")
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN if task == "embed" else PoolingType.RANK)


def _add_vocabulary(writer: GGUFWriter) -> None:
    """WordPiece, letter by letter."""
    types = [TokenType.CONTROL] * len(_CONTROL)
    types += [TokenType.NORMAL] * (len(_TOKENS) - len(_CONTROL))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(_TOKENS))
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    writer.add_vocab_size(len(_TOKENS))
    writer.add_pad_token_id(_TOKENS.index("[PAD]"))
    writer.add_unk_token_id(_TOKENS.index("[UNK]"))
    writer.add_bos_token_id(_TOKENS.index("[CLS]"))
    writer.add_eos_token_id(_TOKENS.index("[SEP]"))
    writer.add_sep_token_id(_TOKENS.index("[SEP]"))


def _tensors(task: str) -> Iterator[tuple[str, Tensor]]:
    random = np.random.RandomState(_SEED)

    def draw(rows: int, columns: int) -> Tensor:
        spread = np.sqrt(3.0 / columns)
        return random.uniform(-spread, spread, (rows, columns)).astype(np.float32)

    ones, zeros = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    yield "token_embd.weight", draw(len(_TOKENS), WIDTH) * 4
    yield "position_embd.weight", draw(CONTEXT_TOKENS, WIDTH)
    yield "token_types.weight", draw(2, WIDTH)
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH)}
    shapes |= {"attn_output": (WIDTH, WIDTH), "ffn_up": (_HIDDEN, WIDTH)}
    shapes |= {"ffn_down": (WIDTH, _HIDDEN)}
    for part, (rows, columns) in shapes.items():
        yield f"blk.0.{part}.weight", draw(rows, columns)
        yield f"blk.0.{part}.bias", np.zeros(rows, np.float32)
    for norm in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        yield f"{norm}.weight", ones
        yield f"{norm}.bias", zeros
    if task == "rerank":
        yield "cls.weight", draw(WIDTH, WIDTH)
        yield "cls.bias", zeros
        yield "cls.output.weight", draw(1, WIDTH)
        yield "cls.output.bias", np.zeros(1, np.float32)
