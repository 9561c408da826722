"""Metadata of model files on the controller. Only headers are read, each only once."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmhost.models.architecture import shape_of_config, shape_of_gguf
from llmhost.models.gguf import Gguf, GgufError, read_gguf
from llmhost.models.lineage import Lineage, declared, of_card, of_metadata
from llmhost.models.safetensors import TensorTotals, files_of_index, read_safetensors
from llmhost.options.model import Model
from llmhost.options.shape import Shape

_INDEX = ".safetensors.index.json"

# Files `sentence_NAME_config.json`, in the order of vLLM (vllm/transformers_utils/config.py,
# get_sentence_transformer_tokenizer_config).
_SENTENCES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")

# Files of these kinds are not for llama.cpp and Ollama; all others must be GGUF.
_OTHER_KINDS = (".safetensors", _INDEX, ".onnx", ".bin", ".pt", ".pth")


def holds_gguf(model: Model) -> bool:
    """Whether the model's file is on the controller and must be a GGUF."""
    return _is_here(model) and not model.source.endswith(_OTHER_KINDS)


def sha256_of(path: Path) -> str:
    """Digest of a file, which is read once for all hosts and phases."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


def gguf_at(path: str) -> Gguf:
    """Header of a GGUF file; raises GgufError."""
    try:
        status = Path(path).stat()
        return _gguf(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise GgufError(f"cannot be read: {error.strerror}") from None


def shape_of(model: Model) -> Shape | None:
    """Sizes of a model, from its file or as declared; none if there is neither.

    Raises ValueError, whose text continues "the file", if the file does not have them.
    """
    try:
        found = _shape_in_file(model)
    except ValueError:
        if model.shape is None:
            raise
        found = None
    return found or model.shape


def lineage_of(model: Model) -> Lineage:
    """The model's names and ancestors, from the inventory, its file and its model card."""
    lineage = declared(model.source, model.base_models, model.licence, model.made_from or "")
    path = _weights_file(model)
    if path is None:
        return lineage
    if holds_gguf(model):
        lineage += of_metadata(gguf_at(model.source).metadata)
    return lineage + _of_card_in(path.parent)


def lineage_beside(model: Model) -> Lineage:
    """The same of the files that are loaded with the model: adapters, projector and draft. Nothing
    of what cannot be read, for which the rules have a sentence."""
    found = Lineage()
    for option, place in model.beside.items():
        with suppress(GgufError):
            own = of_metadata(gguf_at(place).metadata) + _of_card_in(Path(place).parent)
            found += own.found_in(f"its {option}")
    for adapter in model.adapters:
        found += _of_card_in(Path(adapter.source)).found_in(f"its adapter '{adapter.name}'")
    return found


def _of_card_in(directory: Path) -> Lineage:
    card = directory / "README.md"
    return of_card(_text(card)) if card.is_file() else Lineage()


def longest_text(model: Model) -> int | None:
    """The tokens of a text that its files for sentence-transformers allow; None if they say
    nothing, or are not on the controller."""
    for kind in _SENTENCES if model.kind == "file" else ():
        with suppress(OSError, ValueError, RecursionError, AttributeError):
            found = json.loads(_text(Path(model.source, f"sentence_{kind}_config.json")))
            if found:
                longest = found.get("max_seq_length")
                return longest if type(longest) is int else None
    return None


def _is_here(model: Model) -> bool:
    return model.kind == "file" and Path(model.source).is_file()


def _shape_in_file(model: Model) -> Shape | None:
    if holds_gguf(model):
        return shape_of_gguf(gguf_at(model.source))
    path = _weights_file(model)
    if path is None or not path.name.endswith((".safetensors", _INDEX)):
        return None
    return shape_of_config(_config(path.with_name("config.json")), _weights(path))


def _config(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise ValueError("has no config.json in its directory")
    try:
        found = json.loads(_text(file))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("has a config.json that is not a JSON object")
    return found


def _weights_file(model: Model) -> Path | None:
    """The file with the descriptions of a model's tensors, if it is on the controller."""
    if model.kind == "url":
        return None
    path = Path(model.source)
    inside = (path / f"model{_INDEX}", path / "model.safetensors")
    return next((each for each in (path, *inside) if each.is_file()), None)


def _weights(path: Path) -> TensorTotals:
    if not path.name.endswith(_INDEX):
        with path.open("rb") as stream:
            return read_safetensors(stream, path.stat().st_size)
    parts = [path.with_name(name) for name in files_of_index(path.read_bytes())]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise ValueError(f"names {missing[0]}, which is not in its directory")
    weights = [_weights(part) for part in parts]
    return TensorTotals(
        values=sum(each.values for each in weights),
        size=sum(each.size for each in weights),
        matrices=sum((Counter(each.matrices) for each in weights), Counter()),
        divided=frozenset().union(*(each.divided for each in weights)),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified: int) -> str:
    del size, modified  # part of the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=32)
def _gguf(path: str, size: int, modified_ns: int) -> Gguf:
    """A long vocabulary takes 0.1 s, and a run reads settings several times."""
    del modified_ns  # part of the cache's key
    with Path(path).open("rb") as stream:
        return read_gguf(stream, size)
