"""Headers of GGUF files."""

import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from tests.doubles.ollama.refusal import Json, Refused


def read_header(path: Path) -> tuple[Json, list[Json]]:
    """Metadata and tensors of a GGUF file; arrays are None, as `/api/show` gives them."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Refused(500, "unable to load model: invalid file magic")
        _, tensor_count, entry_count = struct.unpack("<IQQ", file.read(20))
        entries = (_entry(file) for _ in range(entry_count))
        return dict(entries), [_tensor(file) for _ in range(tensor_count)]


def tensor_data(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each tensor of 32-bit numbers; the data begins at a multiple of 32."""
    with path.open("rb") as file:
        _, tensor_count, entry_count = struct.unpack("<4xIQQ", file.read(24))
        for _ in range(entry_count):
            _entry(file)
        found = [_placed(file) for _ in range(tensor_count)]
        start = -(-file.tell() // 32) * 32
        for name, count, offset in found:
            file.seek(start + offset)
            yield name, file.read(4 * count)


def _placed(file: BinaryIO) -> tuple[str, int, int]:
    name = _text(file)
    shape = [_unpack(file, "Q") for _ in range(_unpack(file, "I"))]
    _unpack(file, "I")
    return name, prod(shape), _unpack(file, "Q")


def _unpack(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]


def _text(file: BinaryIO) -> str:
    return file.read(_unpack(file, "Q")).decode(errors="replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == 8:
        return _text(file)
    if kind == 9:
        each, count = _unpack(file, "I"), _unpack(file, "Q")
        for _ in range(count):
            _value(file, each)
        return None
    return _unpack(file, {10: "Q", 11: "q", 12: "d"}.get(kind) or "BbHhIif?"[kind])


def _entry(file: BinaryIO) -> tuple[str, Any]:
    return _text(file), _value(file, _unpack(file, "I"))


def _tensor(file: BinaryIO) -> Json:
    name = _text(file)
    shape = [_unpack(file, "Q") for _ in range(_unpack(file, "I"))]
    kind, _ = _unpack(file, "I"), _unpack(file, "Q")
    return {"name": name, "type": "F32" if kind == 0 else str(kind), "shape": shape}
