"""The header of a safetensors file, and the index of a model that has several files.

Format: https://github.com/huggingface/safetensors#format
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO

# The format's own limit (safetensors/src/tensor.rs, MAX_HEADER_SIZE).
LARGEST_HEADER = 100_000_000

_LENGTH_BYTES = 8

# Names of tensors that only describe other ones.
_NO_WEIGHTS = re.compile(r"scale|zero|bias")

_ROUTER = re.compile(r"\.(?:gate|router)\.weight$")

# Matrices whose inputs GPUs divide, by their names in most architectures, and their scales; not
# those of parts for images and sounds.
_DIVIDED = re.compile(r"\.(?:down_proj|o_proj|w2)\.(?:weight|weight_scale|scales)$")
_TOWER = re.compile(r"vis|image|audio|encoder")

Matrices = Mapping[tuple[str, tuple[int, ...]], int]
"""How many tensors have this type, such as `BF16`, and these sizes, two or more."""

Divided = frozenset[tuple[str, str, tuple[int, ...]]]
"""Matrices whose inputs GPUs divide, and their scales: name without numbers, type, sizes."""


class SafetensorsError(ValueError):
    """The file cannot be used; the text continues a sentence that begins with "the file"."""


@dataclass(frozen=True)
class TensorTotals:
    """Number of values and bytes of all tensors, those that are weights with two or more sizes, and
    those that GPUs divide by their inputs."""

    values: int
    size: int
    matrices: Matrices = field(default_factory=Counter)
    divided: Divided = frozenset()


def read_safetensors(stream: BinaryIO, size: int) -> TensorTotals:
    """Read the header at the start of `stream`; `size` is the length of the whole file in bytes.

    Raises SafetensorsError with the reason if the file is not safetensors or is damaged.
    """
    tensors, end = _whole(stream, size)
    matrices = Counter(
        (str(tensor.get("dtype")), tuple(tensor["shape"]))
        for name, tensor in tensors.items()
        if len(tensor["shape"]) > 1 and not _NO_WEIGHTS.search(name)
    )
    divided = frozenset(
        (re.sub(r"\.\d+(?=\.)", "", name), str(tensor.get("dtype")), tuple(tensor["shape"]))
        for name, tensor in tensors.items()
        if len(tensor["shape"]) == 2 and _DIVIDED.search(name) and not _TOWER.search(name)
    )
    values = sum(prod(tensor["shape"]) for tensor in tensors.values())
    return TensorTotals(values, end, matrices, divided)


def shapes_of(stream: BinaryIO, size: int) -> dict[str, tuple[int, ...]]:
    """Sizes of each tensor by its name; raises SafetensorsError as `read_safetensors` does."""
    return {name: tuple(tensor["shape"]) for name, tensor in _whole(stream, size)[0].items()}


def types_of(stream: BinaryIO, size: int) -> set[str]:
    """Types of the tensors, such as `BF16`; raises SafetensorsError as `read_safetensors` does."""
    tensors = _tensors(_header(stream, size)[1])
    return {str(tensor.get("dtype")) for tensor in tensors.values()}


def types_of_matrices(stream: BinaryIO, size: int) -> set[str]:
    """Types of the tensors with several sizes, except those that choose experts, which llama.cpp's
    converter keeps in 32 bits as it does all others; raises SafetensorsError as `read_safetensors`
    does."""
    tensors = _tensors(_header(stream, size)[1]).items()
    kept = (each for name, each in tensors if len(each["shape"]) > 1 and not _ROUTER.search(name))
    return {str(tensor.get("dtype")) for tensor in kept}


def _whole(stream: BinaryIO, size: int) -> tuple[Mapping[str, Mapping[str, Any]], int]:
    """Tensors by their names, and the length of their values in bytes."""
    length, header = _header(stream, size)
    tensors = _tensors(header)
    end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    if _LENGTH_BYTES + length + end > size:
        needed = _LENGTH_BYTES + length + end
        raise SafetensorsError(f"is truncated: it needs {needed:,} bytes, and it has {size:,}")
    return tensors, end


def _header(stream: BinaryIO, size: int) -> tuple[int, Mapping[str, Any]]:
    """Its length, and its content."""
    length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
    if size < _LENGTH_BYTES or length > LARGEST_HEADER:
        raise SafetensorsError("is not a safetensors file, because it has no valid header")
    if _LENGTH_BYTES + length > size:
        raise SafetensorsError("is truncated or not a safetensors file: its header is cut")
    text = stream.read(length)
    return length, _json_object(text, "is not a safetensors file: its header is no JSON")


def _tensors(header: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    tensors = {key: value for key, value in header.items() if key != "__metadata__"}
    if not all(_is_tensor(tensor) for tensor in tensors.values()):
        raise SafetensorsError("is damaged: a tensor's description is incomplete")
    return tensors


def files_of_index(text: bytes) -> tuple[str, ...]:
    """Names of the files that `model.safetensors.index.json` joins; raises SafetensorsError."""
    weight_map = _json_object(text, "is not an index of safetensors files").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise SafetensorsError("is not an index of safetensors files: it has no weight_map")
    names = list(weight_map.values())
    if not all(isinstance(name, str) and "/" not in name and name != ".." for name in names):
        raise SafetensorsError("is damaged: it names files outside its own directory")
    return tuple(sorted(set(names)))


def _json_object(text: bytes, refusal: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise SafetensorsError(refusal) from None
    if not isinstance(value, dict):
        raise SafetensorsError(refusal)
    return value


def _is_tensor(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    shape, offsets = value.get("shape"), value.get("data_offsets")
    return _are_sizes(shape) and _are_sizes(offsets) and len(value["data_offsets"]) == 2


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)
