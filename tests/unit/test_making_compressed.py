"""Models compressed for vLLM: what is refused before anything starts, what a site gets.

llm-compressor itself runs in tests/integration/test_compressed.py; here a double of python3 writes
what it writes.
"""

import hashlib
import json
import struct
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.making.job import Job
from llmhost.making.make import check, make
from llmhost.making.measure import changed_text
from llmhost.making.tools import COMPRESS_PROGRAM, MakingError, Tools
from llmhost.models.files import shape_of
from llmhost.models.lock import write_lock
from llmhost.models.made import made_key
from llmhost.options.derive import Derive
from llmhost.options.model import Model

Json = dict[str, Any]
TOOL = "python3 with llmcompressor"
CONFIG: Json = {
    "hidden_size": 64,
    "vocab_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
# What llm-compressor writes for W4A16: eight weights in each number.
PACKED: Json = {
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}}},
    "format": "pack-quantized",
    "quant_method": "compressed-tensors",
}
DOUBLE = """#!/usr/bin/env python3
# A double of the tools' python3: sys.argv is -c PROGRAM TASK PLACES…
import json, pathlib, sys
task, *places = [word for word in sys.argv[3:] if word not in ("--threads", "1")]
if task == "versions":
    print("version: llmcompressor 0 (double)")
elif task == "compress":
    result = pathlib.Path(places[1])
    result.mkdir()
    (result / "model.safetensors").write_bytes(bytes.fromhex("{weights}"))
    (result / "config.json").write_text('{config}')
    (result.parent / "asked.json").write_text(json.dumps(places))
else:
    value = 12.0 if places[0].endswith("result") else 10.0
    found = {{"rate": 5.0, "memory_bytes": 7}}
    if len(places) > 2:
        found["perplexity"] = {perplexity}
    pathlib.Path(places[1]).write_text(json.dumps(found))
"""


def safetensors(**tensors: tuple[str, list[int], int]) -> bytes:
    """A file with these tensors: type, shape, bytes."""
    header, end = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


WEIGHTS = safetensors(w=("BF16", [64, 64], 8192))
COMPRESSED = safetensors(weight_packed=("I32", [64, 8], 2048), weight_scale=("BF16", [64, 1], 128))


def write_tools(home: Path, perplexity: str = "value") -> Path:
    place = home / "tools"
    place.mkdir(exist_ok=True)
    config = json.dumps(CONFIG | {"quantization_config": PACKED})
    program = DOUBLE.format(weights=COMPRESSED.hex(), config=config, perplexity=perplexity)
    (place / "python3").write_text(program)
    (place / "python3").chmod(0o755)
    return place


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    return write_tools(tmp_path)


def record(home: Path, scheme: str = "W4A16", config: Json = CONFIG, **limits: float) -> Json:
    """A model of vLLM from a repository on the controller, with its texts."""
    place = home / "maker" / "Small"
    place.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"weights",
        "tokenizer.json": b"{}",
        "README.md": b"---\nlicense: mit\n---\n",
    }
    for name, content in files.items():
        (place / name).write_bytes(content)
    (home / "evaluation.txt").write_text("Once upon a time.\n" * 60)
    (home / "texts.txt").write_text("Once upon a time.\n" * 500)
    calibration = {} if scheme == "FP8_DYNAMIC" else {"calibration": str(home / "texts.txt")}
    evaluation = {"perplexity": str(home / "evaluation.txt"), "at_most": 1.25} | limits
    return {
        "name": "coder",
        "service": "vllm",
        "source": str(place),
        "files": [
            {"path": name, "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        ],
        "context_tokens": 128,
        "derive": {"compress": {"scheme": scheme} | calibration, "evaluate": [evaluation]},
    }


def job(home: Path, model: Json) -> Job:
    source = Model.model_validate({k: v for k, v in model.items() if k != "derive"})
    return Job(source, Derive.model_validate(model["derive"]), home / "models.made")


def refusal(wanted: Job, tools: Path) -> str:
    with pytest.raises(MakingError) as caught:
        make(wanted, Tools(tools, 1), lambda _text: None)
    assert not [*wanted.directory.rglob("*")]
    return str(caught.value)


def test_other_result_than_that_of_the_lock_file_replaces_nothing(
    tmp_path: Path, tools: Path
) -> None:
    """What hosts have stays on the controller until an operator accepts another result."""
    wanted = job(tmp_path, record(tmp_path))
    made = make(wanted, Tools(tools, 1), lambda _text: None)
    assert make(wanted, Tools(tools, 1), lambda _text: None, made)["files"] == made["files"]
    (wanted.file / "README.md").write_text("What the hosts have.")
    other = made | {"files": [{"path": "model.safetensors", "sha256": "ab" * 32}]}
    with pytest.raises(MakingError, match="or accept this one with --update"):
        make(wanted, Tools(tools, 1), lambda _text: None, other)
    assert (wanted.file / "README.md").read_text() == "What the hosts have."
    assert not [*wanted.directory.glob("*.draft")]


def test_result_is_a_repository_with_its_pins(tmp_path: Path, tools: Path) -> None:
    entry = make(job(tmp_path, record(tmp_path)), Tools(tools, 1), lambda _text: None)
    result = tmp_path / "models.made" / "Small-W4A16"
    assert entry["file"] == "Small-W4A16"
    assert entry["tools"] == {TOOL: "llmcompressor 0 (double)"}
    # The weights are the new ones, the rest is the source's.
    assert sorted(each.name for each in result.iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "tokenizer.json")
    ]
    for file in entry["files"]:
        content = (result / file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert entry["calibration_sha256"] == hashlib.sha256(b"Once upon a time.\n" * 500).hexdigest()
    (evaluation,) = entry["evaluations"]
    assert (evaluation["before"], evaluation["after"], evaluation["value"]) == (10, 12, 1.2)
    report = entry["report"]
    assert report["after"] == {
        "bytes": len(COMPRESSED),
        "memory_bytes": 7,
        "rate": 5.0,
        "unit": "tokens/s",
    }
    assert report["before"]["bytes"] == len(WEIGHTS)


def test_deploy_takes_the_result_and_the_ledger_counts_it(tmp_path: Path, tools: Path) -> None:
    model = record(tmp_path)
    wanted = job(tmp_path, model)
    entry = make(wanted, Tools(tools, 1), lambda _text: None)
    lock = {made_key(model, wanted.derive): entry}
    (tmp_path / "models.lock.json").write_text(write_lock(lock))
    data = {"services": ["vllm"], "models": [model]}
    data |= {"api_clients": [{"name": "app", "sha256": "ab" * 32}]}
    data |= {"stack_models_lock": str(tmp_path / "models.lock.json")}
    (found,) = read_settings(data).models
    assert found.source == str(tmp_path / "models.made" / "Small-W4A16")
    assert found.made_from == model["source"]
    shape = shape_of(found)
    assert shape and shape.weights_bytes == 2048 + 128
    # 64 × 64 weights are in 64 × 8 numbers: a wrong count would be worse than none.
    assert shape.parameters is None and shape.hidden_size == 64


def test_missed_limit_says_by_how_much_and_leaves_nothing(tmp_path: Path, tools: Path) -> None:
    sentence = refusal(job(tmp_path, record(tmp_path, at_most=1.1)), tools)
    assert "loses too much accuracy as compress-W4A16" in sentence
    assert "is 1.2000, and at most 1.1 is allowed: 0.1000 too much" in sentence


def test_python_without_the_packages_is_refused_with_what_to_install(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    wanted = job(tmp_path, record(tmp_path))
    sentence = refusal(wanted, empty)
    assert f"needs the program {TOOL}, which is not in {empty}" in sentence
    assert "run pip install llmcompressor" in sentence and "--tools DIRECTORY" in sentence
    (empty / "python3").write_text("#!/bin/sh\necho \"No package 'llmcompressor'\"; exit 1\n")
    (empty / "python3").chmod(0o755)
    sentence = refusal(wanted, empty)
    assert f"{TOOL} failed: No package 'llmcompressor'" in sentence
    assert "run pip install llmcompressor" in sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist; write a path on the controller"),
        ("", "is empty"),
        ("Once.\n", "which has 6 bytes: write a text of at least 8 KiB"),
    ],
)
def test_calibration_that_is_missing_or_small_is_refused(
    content: str | None, sentence: str, tmp_path: Path, tools: Path
) -> None:
    wanted = job(tmp_path, record(tmp_path))
    (tmp_path / "texts.txt").unlink()
    if content is not None:
        (tmp_path / "texts.txt").write_text(content)
    assert sentence in refusal(wanted, tools)


def test_text_that_is_too_short_for_perplexity_is_refused(tmp_path: Path) -> None:
    sentence = refusal(job(tmp_path, record(tmp_path)), write_tools(tmp_path, "0"))
    assert "evaluation.txt, which is too short: it needs at least 1024 tokens" in sentence


def test_compressed_source_is_refused(tmp_path: Path, tools: Path) -> None:
    packed = CONFIG | {"quantization_config": PACKED}
    sentence = refusal(job(tmp_path, record(tmp_path, config=packed)), tools)
    assert "is quantized already, as its config.json says" in sentence


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000])
def test_config_that_is_no_record_is_refused(text: str, tmp_path: Path, tools: Path) -> None:
    wanted = job(tmp_path, record(tmp_path))
    (tmp_path / "maker" / "Small" / "config.json").write_text(text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    files = tuple(
        each.model_copy(update={"sha256": sha256}) if each.path == "config.json" else each
        for each in wanted.source.files
    )
    source = wanted.source.model_copy(update={"files": files})
    sentence = refusal(replace(wanted, source=source), tools)
    assert "has a source whose config.json cannot be read as JSON" in sentence


class Layer:
    """What the program asks of a module of PyTorch: how many weights it has, and how it is
    quantized."""

    def __init__(self, size: int, scheme: object = None) -> None:
        self.size, self.quantization_scheme = size, scheme

    def named_parameters(self, recurse: bool) -> list[tuple[str, Any]]:
        assert not recurse
        numbers = SimpleNamespace(ndim=1, numel=lambda: 10**9)
        return [("weight", SimpleNamespace(ndim=2, numel=lambda: self.size)), ("bias", numbers)]


def compressing(monkeypatch: pytest.MonkeyPatch, kind: str, missing: set[str]) -> Json:
    """The program with doubles of what it imports."""
    model = SimpleNamespace(config=SimpleNamespace(model_type=kind))
    causal = SimpleNamespace(from_pretrained=lambda *_, **__: (model, {"missing_keys": missing}))
    written = SimpleNamespace(from_pretrained=lambda *_: SimpleNamespace(model_type="qwen3_5"))
    transformers = SimpleNamespace(AutoModelForCausalLM=causal, AutoConfig=written)
    matching = SimpleNamespace(
        match_name=lambda name, pattern: name == "gate" and "gate" in pattern
    )
    monkeypatch.setitem(sys.modules, "transformers", cast(Any, transformers))
    monkeypatch.setitem(sys.modules, "compressed_tensors", cast(Any, SimpleNamespace()))
    monkeypatch.setitem(sys.modules, "compressed_tensors.utils", cast(Any, matching))
    program: Json = {}
    exec(COMPRESS_PROGRAM.read_text().removesuffix("\nmain()\n"), program)
    return program


@pytest.mark.parametrize(
    ("kind", "missing", "sentence"),
    [
        # Transformers 5.17 loads Qwen3_5ForCausalLM, whose config is that of the text part.
        ("qwen3_5_text", set(), "qwen3_5 does not only read texts, and the result would lack"),
        ("qwen3_5", {"b.up_proj", "a.experts"}, "Transformers reads no a.experts from Small"),
        ("qwen3_5", set(), ""),
    ],
)
def test_only_the_whole_model_is_compressed_and_measured(
    kind: str, missing: set[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compressing(monkeypatch, kind, missing)
    with pytest.raises(SystemExit, match=sentence) if sentence else nullcontext():
        program["loaded"](Path("maker/Small"), dtype=1)


@pytest.mark.parametrize(("left", "refused"), [(101, True), (99, False)])
def test_result_that_is_hardly_compressed_is_refused(
    left: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llm-compressor 0.14 knows no experts of JetMoe: 97 % of the weights stay as they are."""
    program = compressing(monkeypatch, "qwen3_5", set())
    table, head = Layer(1000), Layer(1000)
    layers = {"embed": table, "head": head, "gate": Layer(500), "q": Layer(100, "FP8")}
    model = SimpleNamespace(
        named_modules=lambda: (layers | {"experts": Layer(left)}).items(),
        get_input_embeddings=lambda: table,
        get_output_embeddings=lambda: head,
    )
    sentence = "leaves most weights as they are, such as experts.weight"
    with pytest.raises(SystemExit, match=sentence) if refused else nullcontext():
        program["check_share"](model)


def test_license_without_derived_works_is_refused(tmp_path: Path, tools: Path) -> None:
    wanted = job(tmp_path, record(tmp_path))
    source = wanted.source.model_copy(update={"licence": "cc-by-nd-4.0"})
    assert "allows no derived works" in refusal(replace(wanted, source=source), tools)


def test_changed_calibration_is_noticed(tmp_path: Path, tools: Path) -> None:
    wanted = job(tmp_path, record(tmp_path))
    entry = make(wanted, Tools(tools, 1), lambda _text: None)
    assert changed_text(wanted.derive, entry) == ""
    (tmp_path / "texts.txt").write_text("Twice.\n" * 2000)
    assert changed_text(wanted.derive, entry) == str(tmp_path / "texts.txt")


def test_fp8_needs_no_text(tmp_path: Path, tools: Path) -> None:
    wanted = job(tmp_path, record(tmp_path, "FP8_DYNAMIC"))
    assert check(wanted, Tools(tools)) == {TOOL: "llmcompressor 0 (double)"}
    assert "calibration_sha256" not in make(wanted, Tools(tools), lambda _text: None)
