"""The reader of GGUF headers, against files that the `gguf` package wrote and against rubbish."""

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Kind
from gguf.constants import GGML_QUANT_SIZES, LlamaFileType
from hypothesis import given
from hypothesis import strategies as st

from llmhost.models import gguf
from llmhost.models.gguf import Gguf, GgufError, Value, read_gguf
from llmhost.models.quantization import FILE_TYPES, TENSOR_TYPES
from tests.unit.model_files import decoder, sizes, write_gguf

TENSORS = {
    "token_embd.weight": ((10, 256), Kind.Q6_K),
    "blk.0.attn_q.weight": ((64, 256), Kind.Q4_K),
    "output_norm.weight": ((256,), Kind.F32),
}
METADATA = {"llama.block_count": 1, "general.name": "Tiny", "general.tags": ["a", "b"], "x": True}


def read(data: bytes, size: int | None = None) -> Gguf:
    return read_gguf(io.BytesIO(data), len(data) if size is None else size)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(path, TENSORS, METADATA).read_bytes()


def start(version: int = 3, tensors: int = 0, entries: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(
    name: str = "t", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0
) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def test_metadata_and_tensors_are_read_as_they_were_written(tiny: bytes) -> None:
    found = read(tiny)
    assert found.architecture == "llama"
    assert {key: found.metadata[key] for key in METADATA} == METADATA
    assert found.number("block_count") == 1
    read_back = {each.name: (tuple(reversed(each.shape)), each.kind) for each in found.tensors}
    assert read_back == {name: (shape, kind.name) for name, (shape, kind) in TENSORS.items()}
    assert [each.size for each in found.tensors] == [10 * 210, 64 * 144, 1024]
    assert [each.values for each in found.tensors] == [2560, 64 * 256, 256]


def test_tensor_types_are_those_of_ggml() -> None:
    known = {kind.value: (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGML_QUANT_SIZES}
    assert known.items() >= TENSOR_TYPES.items()


def test_file_types_are_those_of_llama_cpp() -> None:
    names = {kind.value: kind.name.split("_", 1)[1] for kind in LlamaFileType if kind.value < 1024}
    assert names.items() >= FILE_TYPES.items()


def test_vocabulary_is_skipped(tmp_path: Path) -> None:
    tokens = [f"<{n}>" * (n % 30) for n in range(5000)]  # several blocks
    tokens[2500] = "longer than a block " * 10_000
    metadata: dict[str, Value] = {"tokenizer.ggml.tokens": list(tokens), "after": 7}
    metadata["tokenizer.ggml.token_type"] = [1, 2] * 2500
    path = write_gguf(tmp_path / "m.gguf", TENSORS, metadata)
    found = read(path.read_bytes())
    assert "tokenizer.ggml.tokens" not in found.metadata
    assert "tokenizer.ggml.token_type" not in found.metadata
    assert found.metadata["after"] == 7


@pytest.mark.parametrize("values", [[-1000.0] * 5000, [7] * 1025, [True] * 5000])
def test_long_array_of_equal_numbers_has_one(values: list[Any], tmp_path: Path) -> None:
    last = [*values[:-1], type(values[0])(0)]
    metadata: dict[str, Value] = {"equal": values, "last": last, "after": 7}
    path = write_gguf(tmp_path / "m.gguf", TENSORS, metadata)
    found = read(path.read_bytes()).metadata
    assert (found["equal"], found["after"]) == (values[:1], 7) and "last" not in found


def test_real_proportions_are_read_fast(tmp_path: Path) -> None:
    tensors = decoder(
        "Q4_K_M", layers=48, hidden=5120, feed_forward=13824, kv_size=1024, vocabulary=152_064
    )
    path = write_gguf(tmp_path / "m.gguf", tensors, sizes(48, 5120, 40, 8, 32768))
    with path.open("rb") as stream:
        found = read_gguf(stream, path.stat().st_size)
    assert len(found.tensors) == len(tensors)
    assert path.stat().st_blocks * 512 < 2**20, "the test's file must be sparse"


BAD = {
    "empty": (b"", "not a GGUF"),
    "short": (b"GG", "not a GGUF"),
    "other format": (b"PK\x03\x04" + bytes(60), "not a GGUF"),
    "version 1": (start(version=1), "GGUF version 1"),
    "version of the future": (start(version=4), "GGUF version 4"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "GGUF version 50331648"),
    "entries missing": (start(entries=1), "truncated"),
    "tensors missing": (start(tensors=1), "truncated"),
    "absurd count": (start(entries=2**60), "truncated"),
    "absurd text": (start(entries=1) + struct.pack("<Q", 2**62), "truncated"),
    "metadata type": (start(entries=1) + text("k") + struct.pack("<I", 99), "type 99"),
    "array in array": (
        start(entries=1) + text("k") + struct.pack("<IIQIQ", 9, 9, 1, 0, 0),
        "type 9",
    ),
    "absurd array": (start(entries=1) + text("k") + struct.pack("<IIQ", 9, 0, 2**60), "truncated"),
    "key twice": (start(entries=2) + 2 * (text("k") + struct.pack("<IB", 0, 1)), "key appears"),
    "tensor twice": (start(tensors=2) + 2 * tensor(), "tensor appears twice"),
    "no dimension": (start(tensors=1) + tensor(shape=()), "0 dimensions"),
    "many dimensions": (start(tensors=1) + tensor(shape=(1,) * 5), "5 dimensions"),
    "tensor type": (start(tensors=1) + tensor(kind=5), "tensor type 5"),
    "broken rows": (start(tensors=1) + tensor(shape=(31,), kind=2), "whole blocks"),
    "no weights": (start(tensors=1) + tensor(), "truncated"),
    "far offset": (start(tensors=1) + tensor(offset=2**60) + bytes(999), "truncated"),
    "alignment": (
        start(entries=1) + text("general.alignment") + struct.pack("<II", 4, 0),
        "alignment",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_with_a_sentence(case: str) -> None:
    data, expected = BAD[case]
    with pytest.raises(GgufError, match=expected):
        read(data)


def test_file_cut_anywhere_is_refused(tiny: bytes) -> None:
    weights = 10 * 210
    for length in range(0, len(tiny) - weights, 7):
        with pytest.raises(GgufError, match=r"truncated|not a GGUF"):
            read(tiny[:length])


def test_missing_weights_are_counted() -> None:
    data = start(tensors=1) + tensor(shape=(1024,))
    with pytest.raises(GgufError, match="its tensors need 4,160 bytes, and it has 1,000"):
        read(data, size=1000)
    assert read(data, size=4160).tensors[0].size == 4096


def test_number_that_is_no_number_is_refused() -> None:
    values: tuple[Value, ...] = ("many", True, -1, 1.5, [1])
    for value in values:
        found = Gguf({"general.architecture": "llama", "llama.block_count": value}, ())
        with pytest.raises(GgufError, match=r"no integer metadata key llama\.block_count"):
            found.number("block_count")


def test_file_without_architecture_is_refused() -> None:
    with pytest.raises(GgufError, match="does not name its architecture"):
        _ = read(start()).architecture


class Endless(io.RawIOBase):
    """A file that claims to be a terabyte and never ends; as hostile as a sparse file can be."""

    def __init__(self, head: bytes) -> None:
        self.head = io.BytesIO(head)

    def read(self, size: int = -1) -> bytes:
        return self.head.read(size).ljust(size, b"\0")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (start(entries=2**60), "key appears twice"),
        (start(entries=1) + text("k") + struct.pack("<IIQ", 9, 8, 2**60), "header is longer"),
        (start(entries=1) + text("k") + struct.pack("<IIQ", 9, 0, 2**39), "header is longer"),
        (start(entries=1) + struct.pack("<Q", 2**39), "header is longer"),
        (start(tensors=2**60), "0 dimensions"),
    ],
)
def test_hostile_file_costs_little(
    head: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "LARGEST_HEADER", 2**18)
    tracemalloc.start()
    with pytest.raises(GgufError, match=expected):
        read_gguf(Endless(head), 2**40)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(GgufError):
        read(data)


@given(st.binary(max_size=400))
def test_random_bytes_behind_a_good_start_never_crash(data: bytes) -> None:
    _read_or_refuse(start(tensors=2, entries=2) + data)


@given(st.data())
def test_damaged_file_is_read_or_refused(tiny: bytes, data: st.DataObject) -> None:
    damaged = bytearray(tiny)
    for place in data.draw(st.lists(st.integers(0, 600), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    _read_or_refuse(bytes(damaged))


def _read_or_refuse(data: bytes) -> None:
    try:
        found = read(data)
    except GgufError as error:
        assert str(error).startswith(("is ", "has "))
    else:
        assert all(each.offset + each.size <= len(data) for each in found.tensors)
