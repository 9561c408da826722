"""Generates a small language model: real GGUF, real llama, untrained.

Two layers with weights from a fixed seed: every engine that reads GGUF loads it and streams tokens
from it, and the file has the same SHA-256 everywhere. It generates random lower-case letters. It
exists because a closed network has no model hub, and because half a megabyte keeps tests fast.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, LlamaFileType, TokenType
from numpy.typing import NDArray

SHA256 = "6aa52de006ab6af5bb8fa932b9c65dbf847a7f4505f8b28f32d2155135d3896b"
"""SHA-256 of the file that `write` creates."""

CONTEXT_TOKENS = 4096
_SEED = 20261121
_LAYERS, WIDTH, _HEADS, _HIDDEN = 2, 64, 4, 192

_CONTROL = ("<unk>", "<s>", "</s>")
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# U+2581 is how SentencePiece writes a space. Several spaces make words of a readable length.
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz.,▁")
_TOKENS = _CONTROL + _BYTES + _LETTERS
_END = _TOKENS.index("</s>")

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

Tensor = NDArray[np.float32]


def write(path: Path) -> str:
    """Write the model to ``path`` and return its SHA-256."""
    _write(GGUFWriter(path, "llama"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_in_parts(path: Path) -> list[Path]:
    """Write the model to several files, whose names begin like that of ``path``."""
    _write(GGUFWriter(path, "llama", split_max_tensors=8))
    return sorted(path.parent.glob(f"{path.stem}-*-of-*.gguf"))


def _write(writer: GGUFWriter) -> None:
    _describe(writer)
    _add_vocabulary(writer)
    for name, tensor in _tensors():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: GGUFWriter) -> None:
    writer.add_name("llmhost tiny")
    writer.add_license("cc0-1.0")
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(_TOKENS))


def _add_vocabulary(writer: GGUFWriter) -> None:
    """SentencePiece tokens: any text can be read byte by byte, letters have tokens of their own."""
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    types += [TokenType.BYTE] * len(_BYTES) + [TokenType.NORMAL] * len(_LETTERS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(_TOKENS))
    writer.add_token_scores([0.0] * len(_TOKENS))
    writer.add_token_types(types)
    writer.add_bos_token_id(_TOKENS.index("<s>"))
    writer.add_eos_token_id(_END)
    writer.add_unk_token_id(_TOKENS.index("<unk>"))
    writer.add_chat_template(_CHAT_TEMPLATE)


def _tensors() -> Iterator[tuple[str, Tensor]]:
    # RandomState's streams are the same in all versions of NumPy (NEP 19), and a uniform
    # distribution is exact arithmetic: the same bits on every machine.
    random = np.random.RandomState(_SEED)

    def draw(rows: int, columns: int) -> Tensor:
        spread = np.sqrt(3.0 / columns)
        return random.uniform(-spread, spread, (rows, columns)).astype(np.float32)

    ones = np.ones(WIDTH, np.float32)
    embedding = draw(len(_TOKENS), WIDTH) * 4
    embedding[:, 0] = _ANCHOR
    yield "token_embd", embedding
    for layer in range(_LAYERS):
        yield f"blk.{layer}.attn_norm", ones
        for part in ("attn_q", "attn_k", "attn_v"):
            yield f"blk.{layer}.{part}", draw(WIDTH, WIDTH)
        yield f"blk.{layer}.attn_output", _keeping_anchor(draw(WIDTH, WIDTH))
        yield f"blk.{layer}.ffn_norm", ones
        yield f"blk.{layer}.ffn_gate", draw(_HIDDEN, WIDTH)
        yield f"blk.{layer}.ffn_up", draw(_HIDDEN, WIDTH)
        yield f"blk.{layer}.ffn_down", _keeping_anchor(draw(WIDTH, _HIDDEN))
    yield "output_norm", ones
    yield "output", _speaking_letters_only(draw(len(_TOKENS), WIDTH))


_ANCHOR = 4.0
"""The first feature of every token: no layer writes to it, so the output can use it."""


def _keeping_anchor(matrix: Tensor) -> Tensor:
    matrix[0, :] = 0
    return matrix


def _speaking_letters_only(output: Tensor) -> Tensor:
    """Turn the anchor into a bias: single bytes would not be valid UTF-8, so they never occur."""
    output[:, 0] = -20
    output[len(_CONTROL) + len(_BYTES) :, 0] = 0
    output[_TOKENS.index("▁"), 0] = 0.6
    output[_END] = 0  # as likely as a letter, for any prompt: about thirty letters in an answer
    return output
