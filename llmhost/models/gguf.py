"""The header of a GGUF file: metadata and tensor descriptions, never the weights.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

from llmhost.models.quantization import TENSOR_TYPES
from llmhost.units import MIB, gib

MAGIC = b"GGUF"
# llama.cpp reads these too; version 1 is from before August 2023.
VERSIONS = (2, 3)

# A vocabulary of 262,144 tokens (Gemma 3) needs a header of about 15 MiB. The limit bounds memory
# and time for a hostile file.
LARGEST_HEADER = 64 * MIB

# Arrays with a value for each layer are kept; vocabularies, which are much longer, are skipped.
LONGEST_KEPT_ARRAY = 1024

_DEFAULT_ALIGNMENT = 32
_MOST_DIMENSIONS = 4

# Codes of metadata types that have a fixed size, as formats of `struct`.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_STRING = 8
_ARRAY = 9
_LENGTH = struct.Struct("<Q")  # of a string

_BLOCK = 64 * 1024  # bytes read at once

Value = int | float | bool | str | list[int | float | bool | str]


class GgufError(ValueError):
    """The file cannot be used; the text continues a sentence that begins with "the file"."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: `shape` as stored (fastest dimension first), `kind` such as `Q4_K`, `offset`
    and `size` in bytes."""

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    size: int

    @property
    def values(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True)
class Gguf:
    """The header. Metadata arrays longer than LONGEST_KEPT_ARRAY are left out, unless all their
    numbers are equal: these have one element."""

    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """Name of the architecture, such as `llama`; raises GgufError if there is none."""
        return self.text("general.architecture") or _refuse("does not name its architecture")

    def text(self, key: str) -> str:
        """Metadata under this key, as text; empty if it is missing or not a text."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """Whole number under the architecture's own key (`block_count`, …)."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise GgufError(f"has no integer metadata key {self.architecture}.{key}")
        return value


def read_gguf(stream: BinaryIO, size: int) -> Gguf:
    """Read the header at the start of `stream`; `size` is the length of the whole file in bytes.

    Only the header is read, so the stream can be the first part of a download. Raises GgufError
    with the reason if the file is not a GGUF, is damaged, or is too new.
    """
    header = _Header(stream, size)
    if size < len(MAGIC) or header.take(len(MAGIC)) != MAGIC:
        raise GgufError("is not a GGUF file: it does not begin with the letters GGUF")
    version = header.number("I")
    if version not in VERSIONS:
        raise GgufError(f"has GGUF version {version}; llmhost supports 2 and 3")
    tensor_count, entry_count = header.number("Q"), header.number("Q")
    metadata = _metadata(header, entry_count)
    tensors = _tensors(header, tensor_count)
    _check_length(tensors, metadata, header.position, size)
    return Gguf(metadata, tuple(tensors.values()))


class _Header:
    """Reads values from a stream, within the length of the file and LARGEST_HEADER.

    Keeps a block of the stream, because most values are a few bytes long.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.size = size
        self.block = b""
        self.start = 0  # position of the block in the stream
        self.next = 0  # the next byte, in the block

    @property
    def position(self) -> int:
        """Number of bytes that were taken."""
        return self.start + self.next

    def take(self, count: int) -> bytes:
        end = self.next + count
        if end > len(self.block):
            self._read(count)
            end = count
        data = self.block[self.next : end]
        self.next = end
        return data

    def skip_texts(self, count: int) -> None:
        """Like `text()` as often as that, without the texts: for vocabularies, which are long."""
        block, at = self.block, self.next
        for _ in range(count):
            begin = at + _LENGTH.size
            end = begin + _LENGTH.unpack_from(block, at)[0] if begin <= len(block) else begin
            if end > len(block):
                self.next = at
                self.take(self.number("Q"))
                block, at = self.block, self.next
            else:
                at = end
        self.next = at

    def _read(self, count: int) -> None:
        """Make the block begin with the next byte and contain `count` bytes."""
        end = self.position + count
        if end > self.size:
            raise GgufError("is truncated inside its header")
        if end > LARGEST_HEADER:
            raise GgufError(f"is damaged: its header is longer than {gib(LARGEST_HEADER)}")
        self.start, rest = self.position, self.block[self.next :]
        wanted = min(max(count, _BLOCK), min(self.size, LARGEST_HEADER) - self.start)
        self.block = rest + self.stream.read(wanted - len(rest))
        self.next = 0
        if len(self.block) < count:
            raise GgufError("is truncated inside its header")

    def number(self, code: str) -> int:
        return int(self.scalar(code))

    def scalar(self, code: str) -> int | float | bool:
        layout = struct.Struct(f"<{code}")
        value: int | float | bool = layout.unpack(self.take(layout.size))[0]
        return value

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", errors="replace")


def _metadata(header: _Header, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    seen = set()
    for _ in range(count):
        key = header.text()
        if key in seen:
            raise GgufError("is damaged: a metadata key appears twice")
        seen.add(key)
        value = _value(header, header.number("I"))
        if value is not None:
            metadata[key] = value
    return metadata


def _value(header: _Header, code: int) -> Value | None:
    """One value; none for an array that is left out."""
    if code == _ARRAY:
        return _array(header)
    return _single(header, code)


def _single(header: _Header, code: int) -> int | float | bool | str:
    if code == _STRING:
        return header.text()
    if code not in _SCALARS:
        raise GgufError(f"is damaged or too new: it has the unknown metadata type {code}")
    return header.scalar(_SCALARS[code])


def _array(header: _Header) -> Value | None:
    code, length = header.number("I"), header.number("Q")
    if length <= LONGEST_KEPT_ARRAY:
        return [_single(header, code) for _ in range(length)]
    if code in _SCALARS:
        first = header.scalar(_SCALARS[code])
        size = struct.calcsize(f"<{_SCALARS[code]}")
        rest = header.take((length - 1) * size)
        return [first] if rest == struct.pack(f"<{_SCALARS[code]}", first) * (length - 1) else None
    if code != _STRING:
        _single(header, code)  # raises
    header.skip_texts(length)
    return None


def _tensors(header: _Header, count: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for _ in range(count):
        tensor = _tensor(header)
        if tensor.name in tensors:
            raise GgufError("is damaged: a tensor appears twice")
        tensors[tensor.name] = tensor
    return tensors


def _tensor(header: _Header) -> Tensor:
    name, dimensions = header.text(), header.number("I")
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise GgufError(
            f"is damaged: a tensor has {dimensions} dimensions instead of 1 to {_MOST_DIMENSIONS}"
        )
    shape = tuple(header.number("Q") for _ in range(dimensions))
    code, offset = header.number("I"), header.number("Q")
    if code not in TENSOR_TYPES:
        raise GgufError(f"is damaged or too new: tensor type {code} is unknown")
    kind, block_values, block_bytes = TENSOR_TYPES[code]
    if shape[0] % block_values:
        raise GgufError(f"is damaged: rows of a {kind} tensor do not fill whole blocks")
    return Tensor(name, shape, kind, offset, prod(shape) // block_values * block_bytes)


def _check_length(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Value], position: int, size: int
) -> None:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise GgufError("is damaged: its alignment is not a positive number")
    start = -(-position // alignment) * alignment
    end = max((start + each.offset + each.size for each in tensors.values()), default=0)
    if end > size:
        raise GgufError(f"is truncated: its tensors need {end:,} bytes, and it has {size:,}")


def _refuse(reason: str) -> str:
    raise GgufError(reason)
