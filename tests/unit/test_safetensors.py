"""The reader of safetensors headers and indexes."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhost.models.safetensors import (
    LARGEST_HEADER,
    SafetensorsError,
    TensorTotals,
    files_of_index,
    read_safetensors,
)
from tests.unit.model_files import write_safetensors


def read(data: bytes) -> TensorTotals:
    return read_safetensors(io.BytesIO(data), len(data))


def file_of(header: Any, weights: int = 0) -> bytes:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(data)) + data + bytes(weights)


def described(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]} | changes}


def test_sizes_are_summed(tmp_path: Path) -> None:
    one = TensorTotals(32, 64, {("F16", (4, 8)): 1})
    assert read(write_safetensors(tmp_path / "m.safetensors").read_bytes()) == one
    two = described() | {"b": {"dtype": "I8", "shape": [2, 3], "data_offsets": [8, 14]}}
    assert read(file_of(two | {"__metadata__": {"format": "pt"}}, 14)) == TensorTotals(
        10, 14, {("I8", (2, 3)): 1}
    )


BAD = {
    "empty": (b"", "it has no valid header"),
    "short": (b"\1\2\3", "it has no valid header"),
    "text": (b"This is the README.", "it has no valid header"),
    "long header": (struct.pack("<Q", LARGEST_HEADER + 1), "it has no valid header"),
    "header cut": (file_of(described())[:20], "its header is cut"),
    "no object": (file_of([1]), "no JSON"),
    "deep": (file_of(b"[" * 100_000), "no JSON"),
    "weights cut": (file_of(described(), 7), "truncated: it needs"),
    "no offsets": (file_of({"a": {"shape": [1]}}), "incomplete"),
    "no tensor": (file_of({"a": 1}), "incomplete"),
    "negative": (file_of(described(shape=[-4])), "incomplete"),
    "fraction": (file_of(described(shape=[1.5])), "incomplete"),
    "three offsets": (file_of(described(data_offsets=[0, 1, 2])), "incomplete"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_with_a_sentence(case: str) -> None:
    data, expected = BAD[case]
    with pytest.raises(SafetensorsError, match=expected):
        read(data)


def test_index_names_each_file_once() -> None:
    index = {"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}
    assert files_of_index(json.dumps(index).encode()) == ("m-1.safetensors", "m-2.safetensors")


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (b"{", "not an index"),
        (b"{}", "no weight_map"),
        (b'{"weight_map": {}}', "no weight_map"),
        (b'{"weight_map": {"a": "../../etc/shadow"}}', "outside its own directory"),
        (b'{"weight_map": {"a": ".."}}', "outside its own directory"),
        (b'{"weight_map": {"a": "b", "c": 7}}', "outside its own directory"),
    ],
)
def test_bad_index_is_refused_with_a_sentence(index: bytes, expected: str) -> None:
    with pytest.raises(SafetensorsError, match=expected):
        files_of_index(index)


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    for file in (data, file_of(data)):
        try:
            assert read(file).size <= len(file)
        except SafetensorsError as error:
            assert str(error).startswith("is ")


KEYS = st.sampled_from(["a", "shape", "data_offsets", "weight_map"])
LEAVES = st.none() | st.integers() | st.text(max_size=3)
JSON = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=2) | st.dictionaries(KEYS, x, max_size=2), max_leaves=4
)


@given(st.dictionaries(KEYS, JSON, max_size=2))
def test_any_json_is_read_or_refused(value: dict[str, Any]) -> None:
    functions: list[Callable[[], object]] = [
        lambda: read(file_of(value)),
        lambda: files_of_index(json.dumps(value).encode()),
    ]
    for function in functions:
        try:
            function()
        except SafetensorsError as error:
            assert str(error).startswith("is ")
