"""Making models: what is refused before anything starts, what is recorded, what a deploy takes.

The tools themselves run in tests/integration/test_making.py.
"""

import hashlib
import json
import math
import random
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from gguf import GGMLQuantizationType as Kind

from benchmarks.search.cranfield import judge
from llmhost.cli import model_make
from llmhost.cli.model import Locked
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.making import collection, gguf_way
from llmhost.making.collection import Collection, CollectionError
from llmhost.making.fetch import download, fetch
from llmhost.making.job import Embedded, Job, Scored, Speed, Way
from llmhost.making.llama import Reranker, perplexity
from llmhost.making.make import _drafts, check
from llmhost.making.measure import Measurements, changed_text
from llmhost.making.tools import ONNX_PROGRAM, MakingError, Measured, Tools
from llmhost.models.files import lineage_of, shape_of
from llmhost.models.lock import read_lock, write_lock
from llmhost.models.made import derive_of, file_name, input_digest, made_key
from llmhost.options.derive import Derive, Evaluation
from llmhost.options.model import Model
from llmhost.options.policy import ModelPolicy
from tests.doubles.hub import COMMIT, Hub, hub
from tests.unit.model_files import Tensors, write_gguf

Json = dict[str, Any]
PERPLEXITY = {"perplexity": "evaluation.txt", "at_most": 1.05}
AGREEMENT = {"agreement": "texts.txt", "at_least": 0.98}
SHA256 = "ab" * 32
CODER: Json = {
    "name": "coder",
    "source": "hf:maker/Small/small-f16.gguf",
    "revision": COMMIT,
    "sha256": SHA256,
    "context_tokens": 128,
    "derive": {"quantize": "Q4_K_M", "evaluate": [PERPLEXITY]},
}
METADATA = {
    "llama.block_count": 1,
    "llama.embedding_length": 256,
    "llama.attention.head_count": 4,
    "llama.context_length": 2048,
    "general.organization": "Maker",
}


def site(home: Path, model: Json, **options: Any) -> Json:
    return {
        "services": [model.get("service", "llamacpp")],
        "models": [model],
        "api_clients": [{"name": "app", "sha256": SHA256}],
        "stack_models_lock": str(home / "models.lock.json"),
        **options,
    }


def mistakes(data: Json) -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(data)
    return " / ".join(each.sentence("llm") for each in caught.value.problems)


def weights(path: Path, kind: Kind = Kind.F16) -> str:
    """A GGUF with two tensors of this type; its SHA-256."""
    names = ("token_embd.weight", "output.weight")
    tensors: Tensors = dict.fromkeys(names, ((512, 256), kind))
    write_gguf(path, tensors, METADATA)
    return hashlib.sha256(path.read_bytes()).hexdigest()


DERIVE = {
    "evaluation is missing": ({"quantize": "Q4_K_M"}, "derive.evaluate: is missing; add a list"),
    "no evaluation": ({"quantize": "Q4_K_M", "evaluate": []}, "is an empty list"),
    "no measure": ({"quantize": "Q8_0", "evaluate": [{"at_most": 1.1}]}, "has no measure; write"),
    "two measures": (
        {"quantize": "Q8_0", "evaluate": [PERPLEXITY | AGREEMENT]},
        "has several measures; write one",
    ),
    "no limit": (
        {"quantize": "Q8_0", "evaluate": [{"perplexity": "a.txt"}]},
        "has no limit of perplexity; add 'at_most': 1.05",
    ),
    "other limit": (
        {"quantize": "Q8_0", "evaluate": [{"perplexity": "a.txt", "at_least": 0.9}]},
        "at_least: is not a limit of perplexity; write at_most",
    ),
    "limit without sense": (
        {"quantize": "Q8_0", "evaluate": [{"perplexity": "a.txt", "at_most": 0.5}]},
        "at_most: is 0.5; write a number from 1 to 10",
    ),
    "no way": ({"evaluate": [PERPLEXITY]}, "has none of quantize, onnx and compress; write one"),
    "both": (
        {"quantize": "Q8_0", "onnx": {"precision": "int8"}, "evaluate": [PERPLEXITY]},
        "has quantize and onnx; write one",
    ),
    "onnx and compress": (
        {
            "onnx": {"precision": "int8"},
            "compress": {"scheme": "FP8_DYNAMIC"},
            "evaluate": [PERPLEXITY],
        },
        "has onnx and compress; write one",
    ),
    "no evaluation of compress": (
        {"compress": {"scheme": "FP8_DYNAMIC"}},
        "derive.evaluate: is missing; add a list",
    ),
    "unknown scheme": (
        {"compress": {"scheme": "FP8"}, "evaluate": [PERPLEXITY]},
        "compress.scheme: is 'FP8'; write",
    ),
    "no calibration": (
        {"compress": {"scheme": "W8A8"}, "evaluate": [PERPLEXITY]},
        "compress.scheme: is W8A8, which needs a text for calibration; add 'calibration'",
    ),
    "calibration without use": (
        {
            "compress": {"scheme": "FP8_DYNAMIC", "calibration": "texts.txt"},
            "evaluate": [PERPLEXITY],
        },
        "compress.calibration: is not read for FP8_DYNAMIC; remove it",
    ),
    "from_quantized for compress": (
        {
            "compress": {"scheme": "FP8_DYNAMIC"},
            "from_quantized": True,
            "evaluate": [PERPLEXITY],
        },
        "from_quantized: is only for quantize; remove it",
    ),
    "importance for onnx": (
        {"onnx": {"precision": "int8"}, "importance": "a.txt", "evaluate": [PERPLEXITY]},
        "importance: is only for quantize; remove it",
    ),
    "unknown type": ({"quantize": "Q4", "evaluate": [PERPLEXITY]}, "quantize: is 'Q4'; write"),
    **{
        f"importance of {kind}": (
            {"quantize": kind, "evaluate": [PERPLEXITY]},
            f"is {kind}, which needs an importance matrix; add 'importance'",
        )
        for kind in ("IQ2_M", "IQ3_XS")  # both have tensors of IQ2_S or IQ3_XXS
    },
    "importance is missing": (
        {"quantize": "IQ2_XS", "evaluate": [PERPLEXITY]},
        "is IQ2_XS, which needs an importance matrix; add 'importance'",
    ),
    "measure of another task": (
        {"quantize": "Q8_0", "evaluate": [AGREEMENT]},
        "measures agreement, which is for models with task 'embed' or 'rerank', and this one has"
        " 'generate'; write another measure",
    ),
    "measure of rerankers": (
        {"quantize": "Q8_0", "evaluate": [{"rerank": "collection", "at_least": 0.98}]},
        "measures rerank, which is for models with task 'rerank', and this one has 'generate'",
    ),
    "other limit of rerank": (
        {"quantize": "Q8_0", "evaluate": [{"rerank": "collection", "at_most": 1.02}]},
        "at_most: is not a limit of rerank; write at_least",
    ),
    "not made": (
        CODER["derive"],
        "derive: is not made yet as it is declared; run: llmhost model make INVENTORY coder",
    ),
}


@pytest.mark.parametrize("name", DERIVE)
def test_mistake_in_derive_is_one_sentence(name: str, tmp_path: Path) -> None:
    derive, sentence = DERIVE[name]
    assert sentence in mistakes(site(tmp_path, CODER | {"derive": derive}))


FP8: Json = {"compress": {"scheme": "FP8_DYNAMIC"}, "evaluate": [PERPLEXITY]}
SOURCES: dict[str, tuple[Json, str]] = {
    "service": (
        {"service": "vllm"},
        "makes a GGUF file, which the service 'vllm' does not read; write one of llamacpp, ollama,"
        " embeddings, or use compress",
    ),
    "compress for llama.cpp": (
        {"derive": FP8},
        "compresses a model for vLLM, which the service 'llamacpp' is not; write 'vllm', or use"
        " quantize",
    ),
    "compress for an app": (
        {"service": "web", "derive": FP8},
        "which the service 'web' is not; write 'vllm', or use onnx",
    ),
    "compress what embeds": (
        {
            "service": "vllm",
            "task": "embed",
            "source": "hf:maker/Small",
            "sha256": None,
            "files": [{"path": "model.safetensors", "sha256": SHA256}],
            "derive": FP8,
        },
        "compresses a model that generates, and this one has the task 'embed'; correct the task",
    ),
    "compress a file": (
        {"service": "vllm", "derive": FP8},
        "compresses a whole repository; write one, such as 'hf:PUBLISHER/NAME'",
    ),
    "compress a URL": (
        {
            "service": "vllm",
            "source": "https://mirror.example.com/a.gguf",
            "revision": None,
            "derive": FP8,
        },
        "compresses a whole repository; write one, such as 'hf:PUBLISHER/NAME'",
    ),
    "ollama": (
        {"source": "ollama:small:latest", "revision": None},
        "makes a model from Ollama's library, whose files are quantized already; write the",
    ),
    "onnx for llama.cpp": (
        {"derive": {"onnx": {"precision": "int8"}, "evaluate": [PERPLEXITY]}},
        "makes ONNX files, which the service 'llamacpp' does not read; write the name of an app",
    ),
    "onnx of a file": (
        {
            "service": "web",
            "task": "embed",
            "derive": {"onnx": {"precision": "int8"}, "evaluate": [AGREEMENT]},
        },
        "makes ONNX files from a whole repository; write one",
    ),
    "onnx of a generating model": (
        {
            "service": "web",
            "source": "hf:maker/Small",
            "derive": {"onnx": {"precision": "int8"}, "evaluate": [PERPLEXITY]},
        },
        "makes ONNX files, and no service serves a model with task 'generate' from these; use",
    ),
    "ndcg of a reranker": (
        {
            "service": "embeddings",
            "task": "rerank",
            "derive": {"quantize": "Q8_0", "evaluate": [{"ndcg": "c", "at_least": 0.9}]},
        },
        "measures ndcg, which is for models with task 'embed', and this one has 'rerank'",
    ),
    "part": (
        {"source": "hf:maker/Small/s-00001-of-00002.gguf"},
        "makes a model from one GGUF file or from safetensors, not from a file in parts",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source_or_service_that_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    changes, sentence = SOURCES[name]
    assert sentence in mistakes(site(tmp_path, CODER | changes))


def test_made_from_belongs_to_derive(tmp_path: Path) -> None:
    model = {k: v for k, v in CODER.items() if k != "derive"} | {"made_from": "hf:a/b"}
    assert "made_from: is given without derive; remove it" in mistakes(site(tmp_path, model))


def job(home: Path, **changes: Any) -> Job:
    """A job that only lacks its tools."""
    sha256 = weights(home / "small-f16.gguf")
    (home / "evaluation.txt").write_text("Once upon a time.\n" * 60)
    source = {"name": "coder", "source": str(home / "small-f16.gguf"), "sha256": sha256}
    evaluate = [{"perplexity": str(home / "evaluation.txt"), "at_most": 1.05}]
    derive = Derive.model_validate({"quantize": "Q4_K_M", "evaluate": evaluate})
    wanted = Job(Model.model_validate(source), derive, home / "models.made")
    return replace(wanted, **changes)


def refusal(wanted: Job, tools: Path) -> str:
    with pytest.raises(MakingError) as caught:
        check(wanted, Tools(tools))
    return str(caught.value)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Doubles that only say their version."""
    home = tmp_path / "tools"
    home.mkdir()
    for name in ("llama-quantize", "llama-perplexity", "llama-bench", "llama-server"):
        (home / name).write_text("#!/bin/sh\necho 'version: 1 (double)'\n")
        (home / name).chmod(0o755)
    return home


def test_all_is_checked_before_anything_starts(tmp_path: Path, tools: Path) -> None:
    versions = check(job(tmp_path), Tools(tools))
    assert versions == dict.fromkeys(
        ("llama-quantize", "llama-perplexity", "llama-bench"), "1 (double)"
    )
    assert not (tmp_path / "models.made").exists()


def test_missing_tool_is_named_with_its_package(tmp_path: Path, tools: Path) -> None:
    (tools / "llama-perplexity").unlink()
    sentence = refusal(job(tmp_path), tools)
    assert f"needs the program llama-perplexity, which is not in {tools}" in sentence
    assert "apt-get install llama.cpp-tools-extra" in sentence


def test_tool_that_fails_is_named_with_its_last_lines(tmp_path: Path, tools: Path) -> None:
    (tools / "llama-server").write_text("#!/bin/sh\necho 'no such library'; exit 127\n")
    assert "llama-server failed: no such library" in refusal(job(tmp_path), tools)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist; write a path"),
        ("\n \n", "is empty"),
        (b"\xff\xfe\xff", "as text"),
        ("Once upon a time.\n" * 50, "which is too short: it needs at least 1024 tokens"),
    ],
)
def test_evaluation_that_cannot_be_read_is_refused(
    content: str | bytes | None, sentence: str, tmp_path: Path, tools: Path
) -> None:
    wanted = job(tmp_path)
    text = tmp_path / "evaluation.txt"
    text.unlink()
    if content is not None:
        text.write_bytes(content.encode() if isinstance(content, str) else content)
    assert sentence in refusal(wanted, tools)


def test_quantized_source_is_refused_unless_it_is_accepted(tmp_path: Path, tools: Path) -> None:
    wanted = job(tmp_path)
    sha256 = weights(tmp_path / "small-f16.gguf", Kind.Q4_1)
    wanted = replace(wanted, source=wanted.source.model_copy(update={"sha256": sha256}))
    sentence = refusal(wanted, tools)
    assert "has a source that is quantized already (Q4_1)" in sentence
    assert "'from_quantized': True" in sentence
    accepted = wanted.derive.model_copy(update={"from_quantized": True})
    assert check(replace(wanted, derive=accepted), Tools(tools))


def test_room_is_checked(tmp_path: Path, tools: Path) -> None:
    sentence = refusal(job(tmp_path, source_bytes=2**60), tools)
    assert re.search(r"needs up to 1073741824.0 GiB in .*, and [\d.]+ GiB are free", sentence)


def test_policy_judges_the_source(tmp_path: Path, tools: Path) -> None:
    policy = ModelPolicy(denied_publishers=("maker",))
    sentence = refusal(job(tmp_path, policies=(policy,)), tools)
    assert "is refused by policy_denied_publishers 'maker': 'Maker', in the file" in sentence


def test_license_without_derived_works_is_refused(tmp_path: Path, tools: Path) -> None:
    wanted = job(tmp_path)
    source = wanted.source.model_copy(update={"licence": "cc-by-nc-nd-4.0"})
    assert "allows no derived works" in refusal(replace(wanted, source=source), tools)


def repository(home: Path, dtype: str = "BF16", config: bool = True) -> Job:
    """A job from a repository with one tensor of this type."""
    place = home / "Small"
    place.mkdir()
    header = json.dumps({"w": {"dtype": dtype, "shape": [2], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + b"\0" * 4
    (place / "model.safetensors").write_bytes(content)
    files = {"model.safetensors": content}
    if config:
        files["config.json"] = b"{}"
        (place / "config.json").write_bytes(b"{}")
    pins = [{"path": n, "sha256": hashlib.sha256(c).hexdigest()} for n, c in files.items()]
    source = {"name": "coder", "source": str(place), "files": pins}
    return replace(job(home), source=Model.model_validate(source))


def test_repository_needs_the_converter(tmp_path: Path, tools: Path) -> None:
    sentence = refusal(repository(tmp_path), tools)
    assert "needs the program convert_hf_to_gguf.py" in sentence and "python3-torch" in sentence


def test_onnx_needs_its_python(tmp_path: Path, tools: Path) -> None:
    evaluate = [{"agreement": str(tmp_path / "evaluation.txt"), "at_least": 0.9}]
    derive = Derive.model_validate({"onnx": {"precision": "int8"}, "evaluate": evaluate})
    wanted = replace(repository(tmp_path), derive=derive)
    sentence = refusal(wanted, tools)
    assert "needs the program python3" in sentence and "python3-onnxruntime" in sentence
    (tools / "python3").write_text("#!/bin/sh\necho \"No module named 'onnx'\"; exit 1\n")
    (tools / "python3").chmod(0o755)
    sentence = refusal(wanted, tools)
    assert "python3 failed: No module named 'onnx'" in sentence


def test_quantized_safetensors_are_refused(tmp_path: Path, tools: Path) -> None:
    sentence = refusal(repository(tmp_path, "F8_E4M3"), tools)
    assert "whose safetensors are F8_E4M3; use a repository in F32, F16 or BF16" in sentence


def with_tensors(wanted: Job, tensors: dict[str, tuple[str, list[int]]]) -> Job:
    """The same repository, with tensors of these types and sizes, without their values."""
    place = Path(wanted.source.source)
    header = {
        name: {"dtype": kind, "shape": sizes, "data_offsets": [0, 0]}
        for name, (kind, sizes) in tensors.items()
    }
    text = json.dumps(header).encode()
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return wanted


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({}, "bf16"),
        # GLM-4.5, and routers of Ernie: the converter keeps these in 32 bits anyway.
        ({"mlp.gate.e_score_correction_bias": ("F32", [128])}, "bf16"),
        ({"mlp.gate.weight": ("F32", [128, 64])}, "bf16"),
        ({"mlp.up_proj.weight": ("F32", [128, 64])}, "f32"),
        ({"mlp.up_proj.weight": ("F16", [128, 64])}, "bf16"),
    ],
)
def test_few_numbers_in_32_bits_do_not_double_what_is_converted(
    more: dict[str, tuple[str, list[int]]], kind: str, tmp_path: Path, tools: Path
) -> None:
    program = tools / "convert_hf_to_gguf.py"
    program.write_text(f"#!/bin/sh\necho $5 >{tmp_path}/type; exit 1\n")
    program.chmod(0o755)
    tensors = {"mlp.down_proj.weight": ("BF16", [64, 128]), "norm.weight": ("BF16", [64])}
    wanted = with_tensors(repository(tmp_path), {**tensors, **more})
    with pytest.raises(MakingError, match="failed"):
        gguf_way._convert(wanted, Tools(tools), tmp_path / "Small", tmp_path)
    assert (tmp_path / "type").read_text().strip() == kind


@pytest.mark.parametrize(("words", "refused"), [(250_002, True), (30_522, False)])
def test_model_too_large_for_an_onnx_file_is_refused(
    words: int, refused: bool, tmp_path: Path, all_tools: Path
) -> None:
    """BGE-M3 has 568 million weights, bert-large 335."""
    wanted = embedder(tmp_path, [f"{OLD}Transformer", f"{OLD}Pooling"], MEAN, **ONNX)
    sizes = {"embeddings.weight": ("F16", [words, 1024]), "all.weight": ("F16", [24, 12_599_296])}
    wanted = with_tensors(wanted, sizes)
    if refused:
        sentence = refusal(wanted, all_tools)
        assert "has a source of 2.1 GiB in F32, and an ONNX file has less than 2 GiB" in sentence
    else:
        assert check(wanted, Tools(all_tools))


def test_repository_without_config_is_refused(tmp_path: Path, tools: Path) -> None:
    assert "without config.json" in refusal(repository(tmp_path, config=False), tools)


def reranker(home: Path, architecture: str, **derive: Any) -> Job:
    """A job from a repository of this architecture, with a question and a text in each line."""
    wanted = repository(home, "F32")
    config = json.dumps({"architectures": [architecture]})
    (home / "Small" / "config.json").write_text(config)
    (home / "evaluation.txt").write_text("What lifts?\tA wing.\nWhat stalls?\tThe flow.\n")
    evaluate = [{"agreement": str(home / "evaluation.txt"), "at_least": 0.9}]
    made_by = Derive.model_validate(derive | {"evaluate": evaluate})
    source = wanted.source.model_copy(update={"task": "rerank"})
    return replace(wanted, source=source, derive=made_by)


@pytest.fixture
def all_tools(tools: Path) -> Path:
    for name in ("convert_hf_to_gguf.py", "python3"):
        (tools / name).write_text("#!/bin/sh\necho 'version: 1 (double)'\n")
        (tools / name).chmod(0o755)
    return tools


def test_converter_would_omit_a_layer_of_a_bert_reranker(tmp_path: Path, all_tools: Path) -> None:
    wanted = reranker(tmp_path, "BertForSequenceClassification", quantize="Q8_0")
    sentence = refusal(wanted, all_tools)
    assert "BERT's architecture, of which llama.cpp's converter omits a layer" in sentence


@pytest.mark.parametrize("lost", [0, 1, 3, 4])
def test_perplexity_whose_last_lines_were_lost_is_measured_again(
    lost: int, tmp_path: Path, tools: Path
) -> None:
    """llama-perplexity ends with status 0 then; its output as build 11669 prints it."""
    program = tools / "llama-perplexity"
    program.write_text(
        f"""#!/bin/sh
        echo run >>{tmp_path}/runs
        printf '[1]207.42,[2]206.11,'
        [ "$(wc -l <{tmp_path}/runs)" -le {lost} ] && exit 0
        printf '[3]213.86,\\n0.07.131.338 I Final estimate: PPL = 213.8614 +/- 5.27192\\n'
        """
    )
    with pytest.raises(MakingError, match="no estimate") if lost == 4 else nullcontext():
        assert perplexity(Tools(tools), tmp_path / "m.gguf", "text.txt") == 213.8614
    assert len((tmp_path / "runs").read_text().split()) == min(lost + 1, 4)


@pytest.mark.parametrize(
    ("kind", "scores", "refused"),
    [
        ("llama", [-1000.0] * 2000, True),  # what the converter writes without tokenizer.model
        ("llama", [-1000.0] * 20, True),
        ("llama", [-float(each) for each in range(2000)], False),
        ("gpt2", [-1000.0] * 2000, False),  # by merges
        ("gpt2", None, False),
    ],
)
def test_converted_tokens_without_their_order_are_refused(
    kind: str, scores: list[float] | None, refused: bool, tmp_path: Path
) -> None:
    metadata: dict[str, Any] = {"tokenizer.ggml.model": kind}
    if scores:
        metadata["tokenizer.ggml.scores"] = scores
    file = write_gguf(tmp_path / "source.gguf", {"w": ((2, 32), Kind.F16)}, metadata)
    with pytest.raises(MakingError, match=r"tokenizer\.model") if refused else nullcontext():
        gguf_way._check_order(file)


@pytest.mark.parametrize(
    ("architecture", "derive", "needed"),
    [
        ("XLMRobertaForSequenceClassification", {"quantize": "Q8_0"}, "llama-server"),
        ("BertForSequenceClassification", {"onnx": {"precision": "int8"}}, "python3"),
    ],
)
def test_other_rerankers_are_accepted(
    architecture: str, derive: Json, needed: str, tmp_path: Path, all_tools: Path
) -> None:
    assert needed in check(reranker(tmp_path, architecture, **derive), Tools(all_tools))


def embedder(home: Path, modules: list[str], pooling: Json, **derive: Any) -> Job:
    """A job from a repository of sentence-transformers with these modules."""
    wanted = repository(home, "F32")
    place = home / "Small"
    records = [
        {"idx": n, "name": str(n), "path": f"{n}_{name.rpartition('.')[2]}", "type": name}
        for n, name in enumerate(modules)
    ]
    (place / "modules.json").write_text(json.dumps(records))
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    evaluate = [{"agreement": str(home / "evaluation.txt"), "at_least": 0.9}]
    made_by = Derive.model_validate(derive | {"evaluate": evaluate})
    source = wanted.source.model_copy(update={"task": "embed"})
    return replace(wanted, source=source, derive=made_by)


ONNX = {"onnx": {"precision": "int8"}}
MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
LAST = {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}
OLD = "sentence_transformers.models."


@pytest.mark.parametrize(
    ("modules", "pooling", "derive", "sentence"),
    [
        # As in google/embeddinggemma-300m.
        (
            ["Transformer", "Pooling", "Dense", "Dense", "Normalize"],
            MEAN,
            {"quantize": "Q8_0"},
            "ends with the layers Dense, as its modules.json says, which quantize omits; use a",
        ),
        (["Transformer", "Pooling", "Dense"], MEAN, ONNX, "layers Dense, as its modules.json"),
        (["StaticEmbedding"], MEAN, ONNX, "layers StaticEmbedding, as its modules.json says"),
        (["Transformer", "Pooling"], LAST, ONNX, "another pooling than of the mean or of the fir"),
        (["Transformer", "Pooling"], {"pooling_mode": "max"}, ONNX, "another pooling than of"),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            ONNX,
            "another pooling than of",
        ),
    ],
)
@pytest.mark.parametrize("version", ["before 5.4", "5.4"])
def test_layers_that_a_result_would_lack_are_refused(
    version: str,
    modules: list[str],
    pooling: Json,
    derive: Json,
    sentence: str,
    tmp_path: Path,
    all_tools: Path,
) -> None:
    """Agreement with a source that lacks them, too, would be perfect."""
    names = [f"{OLD}{name}" for name in modules]
    if version == "5.4":  # https://github.com/ggml-org/llama.cpp/pull/22087
        names = [f"sentence_transformers.base.modules.{name.lower()}.{name}" for name in modules]
    assert sentence in refusal(embedder(tmp_path, names, pooling, **derive), all_tools)


@pytest.mark.parametrize(
    ("pooling", "derive"),
    [
        (MEAN, ONNX),
        ({"pooling_mode_cls_token": True}, ONNX),
        ({"pooling_mode": "cls"}, ONNX),
        (LAST, {"quantize": "Q8_0"}),
    ],
)
def test_other_embedders_are_accepted(
    pooling: Json, derive: Json, tmp_path: Path, all_tools: Path
) -> None:
    names = [f"{OLD}{name}" for name in ("Transformer", "Pooling", "Normalize")]
    assert check(embedder(tmp_path, names, pooling, **derive), Tools(all_tools))


@pytest.mark.parametrize(
    ("config", "way"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
        (MEAN, "mean"),
        (None, "mean"),
    ],
)
def test_onnx_files_are_pooled_as_their_source(
    config: Json | None, way: str, tmp_path: Path
) -> None:
    """https://github.com/vllm-project/vllm/issues/45995"""
    if config is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    program: Json = {}
    exec(ONNX_PROGRAM.read_text().removesuffix("\nmain()\n"), program)
    assert program["pooled_by"](tmp_path) == way


@pytest.mark.parametrize("text", ['["Dense"]', "{}", "[" * 100_000])
def test_damaged_list_of_modules_is_refused(text: str, tmp_path: Path, all_tools: Path) -> None:
    wanted = embedder(tmp_path, [], MEAN, **ONNX)
    (tmp_path / "Small" / "modules.json").write_text(text)
    assert "whose modules.json cannot be read as JSON" in refusal(wanted, all_tools)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("What lifts? A wing.\n", "no question and text, separated by a tab, in line 1"),
        ("What lifts?\tA wing.\nWhat?\t \n", "separated by a tab, in line 2"),
        ("What lifts?\tA wing.\n", "has one line; a rank correlation needs two or more"),
    ],
)
def test_agreement_of_rerankers_needs_questions_and_texts(
    content: str, sentence: str, tmp_path: Path, all_tools: Path
) -> None:
    wanted = reranker(tmp_path, "XLMRobertaForSequenceClassification", quantize="Q8_0")
    (tmp_path / "evaluation.txt").write_text(content)
    assert sentence in refusal(wanted, all_tools)


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub() as double:
        double.files = {"maker/Small/small-f16.gguf": b"weights"}
        yield double


def fetched(served: Hub, home: Path, sha256: str, token: str = "") -> Path:
    source = Model.model_validate({**CODER, "derive": None, "sha256": sha256})
    mirrors = {"https://huggingface.co": served.url}
    return fetch(source, home, mirrors, token, lambda _text: None)


def test_source_is_fetched_once_and_by_its_digest(tmp_path: Path, served: Hub) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    place = fetched(served, tmp_path, sha256)
    assert (place.name, place.read_bytes()) == ("small-f16.gguf", b"weights")
    asked = len(served.asked)
    assert fetched(served, tmp_path, sha256) == place and len(served.asked) == asked
    place.write_bytes(b"damaged")
    assert fetched(served, tmp_path, sha256).read_bytes() == b"weights"


def test_source_with_another_digest_is_refused(tmp_path: Path, served: Hub) -> None:
    with pytest.raises(MakingError, match=r"small-f16\.gguf has another SHA-256 than its pin"):
        fetched(served, tmp_path, SHA256)
    assert not [*tmp_path.rglob("*.gguf*")]


class Ranges(BaseHTTPRequestHandler):
    """Sends the rest of a file (RFC 9110, section 14), but closes the first connection early."""

    content = b"weights" * 1000
    sent: list[int]

    def do_GET(self) -> None:
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = self.content[begin:]
        self.send_response(206 if begin and rest else 200 if rest else 416)
        size = len(self.content)
        self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        rest = rest if self.sent else rest[:3000]
        self.sent.append(len(rest))
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ranges() -> Iterator[tuple[str, list[int]]]:
    sent: list[int] = []
    handler = type("Handler", (Ranges,), {"sent": sent})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/weights", sent
        server.shutdown()


def get(url: str, target: Path, sha256: str = hashlib.sha256(Ranges.content).hexdigest()) -> None:
    download(url, {}, target, sha256, lambda _text: None)


def test_interrupted_download_is_continued(ranges: tuple[str, list[int]], tmp_path: Path) -> None:
    url, sent = ranges
    target = tmp_path / "weights"
    with pytest.raises(MakingError, match=r"cannot be fetched from 127\.0\.0\.1"):
        get(url, target)
    get(url, target)
    assert target.read_bytes() == Ranges.content and sent == [3000, 4000]
    assert [*tmp_path.iterdir()] == [target]


def test_download_that_was_complete_is_not_repeated(
    ranges: tuple[str, list[int]], tmp_path: Path
) -> None:
    url, sent = ranges
    (tmp_path / "weights.part").write_bytes(Ranges.content)
    get(url, tmp_path / "weights")
    assert sent == [0] and [*tmp_path.iterdir()] == [tmp_path / "weights"]


@pytest.mark.parametrize("left", [b"x" * 3000, b"x" * 9000], ids=["shorter", "longer"])
def test_rest_of_another_file_is_not_continued(
    left: bytes, ranges: tuple[str, list[int]], tmp_path: Path
) -> None:
    url, sent = ranges
    sent.append(0)
    (tmp_path / "weights.part").write_bytes(left)
    get(url, tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == Ranges.content and sent[-1] == 7000


def test_two_downloads_of_a_file_do_not_mix(ranges: tuple[str, list[int]], tmp_path: Path) -> None:
    url, sent = ranges
    sent.append(0)
    program = "import fcntl, os, sys\nfcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)"
    program += "\nprint(flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        with pytest.raises(MakingError, match="is being fetched by another run: wait until"):
            get(url, tmp_path / "weights")
        other.communicate()
    get(url, tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == Ranges.content


def test_server_without_ranges_sends_the_whole_file(tmp_path: Path, served: Hub) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    place = tmp_path / "inputs"
    fetched(served, tmp_path, sha256)
    [file] = place.rglob("*.gguf")
    file.rename(f"{file}.part")
    Path(f"{file}.part").write_bytes(b"wei")
    assert fetched(served, tmp_path, sha256).read_bytes() == b"weights"


def test_refused_request_leaves_what_was_fetched(tmp_path: Path, served: Hub) -> None:
    (tmp_path / "weights.part").write_bytes(b"wei")
    with pytest.raises(MakingError, match="answered 404"):
        get(f"{served.url}/nowhere", tmp_path / "weights")
    assert (tmp_path / "weights.part").read_bytes() == b"wei"


def test_gated_source_is_fetched_with_the_token(tmp_path: Path, served: Hub) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    served.gated.add("maker/Small")
    with pytest.raises(MakingError, match="answered 401"):
        fetched(served, tmp_path, sha256)
    assert fetched(served, tmp_path, sha256, "good").is_file()


def made(home: Path, model: Json, **changes: Any) -> Json:
    """The site of a model that was made; `changes` are of its entry."""
    derive = derive_of(model)
    assert derive
    name = file_name(model["source"], derive.recipe)
    (home / "models.made").mkdir(exist_ok=True)
    sha256 = weights(home / "models.made" / name, Kind.Q8_0)
    entry: Json = {"file": name, "sha256": sha256, "input": input_digest(model)}
    entry["evaluations"] = [{"measure": "perplexity", "reference": "evaluation.txt", "value": 1.02}]
    source = {"revision": COMMIT, "sha256": SHA256, "licence": "mit", "bytes": 5}
    lock = {made_key(model, derive): entry | changes, model["source"]: source}
    (home / "models.lock.json").write_text(write_lock(lock))
    return site(home, model)


UNPINNED = {k: v for k, v in CODER.items() if k not in ("revision", "sha256")}


@pytest.mark.parametrize("record", [CODER, UNPINNED], ids=["pinned", "locked"])
def test_deploy_takes_the_result(record: Json, tmp_path: Path) -> None:
    data = made(tmp_path, record, input=SHA256)
    (found,) = read_settings(data).models
    result = tmp_path / "models.made" / "small-Q4_K_M.gguf"
    assert (found.kind, found.source) == ("file", str(result))
    assert found.sha256 == hashlib.sha256(result.read_bytes()).hexdigest()
    assert [*found.places.values()] == [str(result)]
    # Two tensors of 512 * 256 values in Q8_0; the table of the input layer stays in main memory.
    shape = shape_of(found)
    assert shape and shape.weights_bytes == 512 * 256 // 32 * 34
    assert ("Small/small-f16.gguf", "maker") in {
        (each.name, each.publisher) for each in lineage_of(found).ancestors
    }


def test_policy_judges_what_a_model_was_made_from(tmp_path: Path) -> None:
    data = made(tmp_path, CODER) | {"policy_denied_publishers": ["maker"]}
    assert "in the source that it is made from" in mistakes(data)


OUTDATED: dict[str, tuple[Json, Json]] = {
    "another source": ({}, {"input": "cd" * 32}),
    "not evaluated": ({}, {"evaluations": []}),
    "a narrower limit": (
        {"evaluate": [{"perplexity": "evaluation.txt", "at_most": 1.01}]},
        {},
    ),
    "another text": ({"evaluate": [{"perplexity": "other.txt", "at_most": 1.05}]}, {}),
}


@pytest.mark.parametrize("name", OUTDATED)
def test_deploy_refuses_what_was_made_otherwise(name: str, tmp_path: Path) -> None:
    declared, changes = OUTDATED[name]
    model = CODER | {"derive": CODER["derive"] | declared}
    assert "is not made yet as it is declared" in mistakes(made(tmp_path, model, **changes))


def test_changed_text_is_noticed_where_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    derive = Derive.model_validate({**CODER["derive"], "importance": "calibration.txt"})
    for name in ("evaluation.txt", "calibration.txt"):
        (tmp_path / name).write_text("Once upon a time.\n")
    sha256 = hashlib.sha256(b"Once upon a time.\n").hexdigest()
    evaluation = {"measure": "perplexity", "reference": "evaluation.txt", "sha256": sha256}
    entry = {"evaluations": [evaluation], "importance_sha256": sha256}
    assert changed_text(derive, entry) == ""
    (tmp_path / "calibration.txt").write_text("Twice\n")
    assert changed_text(derive, entry) == "calibration.txt"
    (tmp_path / "evaluation.txt").write_text("Twice\n")
    assert changed_text(derive, entry) == "evaluation.txt"
    (tmp_path / "evaluation.txt").unlink()
    (tmp_path / "calibration.txt").unlink()
    assert changed_text(derive, entry) == ""


def run(home: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "llmhost.cli", "model", *arguments]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_lock_keeps_what_was_made(tmp_path: Path) -> None:
    data = made(tmp_path, CODER)
    (tmp_path / "site.py").write_text(f"llm_servers = [('llm', {data!r})]\n")
    status, output = run(tmp_path, "lock", "site.py", "--update")
    assert status == 0, output
    assert read_settings(data).models[0].made_from == CODER["source"]
    listed = run(tmp_path, "list", "site.py")[1]
    assert "nothing" not in listed and "abababababab" in listed


def test_make_names_what_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(f"llm_servers = [('llm', {site(tmp_path, CODER)!r})]\n")
    status, output = run(tmp_path, "make", "site.py", "brain")
    assert status == 1 and "site.py derives no model 'brain'; write 'coder'" in output
    status, output = run(tmp_path, "make", "site.py", "--tools", "nowhere")
    assert status == 1 and "coder cannot be evaluated: evaluation.txt does not exist" in output


@pytest.mark.parametrize(
    "other",
    [
        {"source": "hf:other/Copy/small-f16.gguf"},
        {"derive": CODER["derive"] | {"importance": "calibration.txt"}},
    ],
    ids=["of another publisher", "by another recipe"],
)
def test_two_results_of_one_name_are_refused(tmp_path: Path, other: Json) -> None:
    """Each would replace the other, and a deploy of both could never succeed."""
    data = site(tmp_path, CODER)
    data["models"] = [CODER, CODER | {"name": "other"} | other]
    (tmp_path / "site.py").write_text(f"llm_servers = [('llm', {data!r})]\n")
    status, output = run(tmp_path, "make", "site.py")
    expected = "coder and other would both be made as small-Q4_K_M.gguf, and are not the same"
    assert status == 1 and expected in output
    data["models"][1] = CODER | {"name": "other"}  # the same result for two roles
    (tmp_path / "site.py").write_text(f"llm_servers = [('llm', {data!r})]\n")
    assert "evaluation.txt does not exist" in run(tmp_path, "make", "site.py")[1]


def test_lock_keeps_what_others_wrote_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making takes hours; the lock file is under version control, and others pull or lock."""
    made(tmp_path, UNPINNED)
    lock_file, other = tmp_path / "models.lock.json", "hf:maker/Other/b.gguf"
    before = read_lock(lock_file.read_text())
    lock_file.write_text(write_lock(before | {other: {"revision": "old"}}))

    def make(*_: object) -> Json:
        lock_file.write_text(write_lock(before | {other: {"revision": "new"}}))
        return {"sha256": "cd" * 32, "evaluations": []}

    monkeypatch.setattr(model_make, "make", make)
    model_make._made(lock_file, Locked([UNPINNED]), UNPINNED, Tools(), update=True)
    found = read_lock(lock_file.read_text())
    assert found[other] == {"revision": "new"}
    assert found[f"{CODER['source']} > Q4_K_M"]["sha256"] == "cd" * 32


@pytest.mark.parametrize("update", [False, True])
def test_other_text_of_the_evaluation_does_not_change_the_result_unasked(
    update: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is measured again; the hosts' weights stay unless another result is accepted."""
    monkeypatch.chdir(tmp_path)
    made(tmp_path, CODER, tools={"llama-quantize": "1"})
    (tmp_path / "evaluation.txt").write_text("Not what it was measured on.\n" * 60)
    lock_file = tmp_path / "models.lock.json"
    asked: list[Json | None] = []

    def make(_: Job, __: Tools, ___: object, old: Json | None) -> Json:
        asked.append(old)
        return {"sha256": "cd" * 32, "evaluations": []}

    monkeypatch.setattr(model_make, "make", make)
    model_make._made(lock_file, Locked([CODER]), CODER, Tools(), update=update)
    (old,) = asked
    assert old is None if update else old and old["tools"] == {"llama-quantize": "1"}


def test_second_run_does_not_remove_the_drafts_of_the_first(tmp_path: Path) -> None:
    wanted = job(tmp_path)
    wanted.directory.mkdir()
    with _drafts(wanted) as drafts:
        (drafts / "half.gguf").write_text("hours of work")
        with pytest.raises(MakingError, match="is being made by another run"), _drafts(wanted):
            pass
        assert (drafts / "half.gguf").is_file()
    assert not drafts.exists()


def test_drafts_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    wanted = job(tmp_path)
    (wanted.drafts / "result" / "onnx").mkdir(parents=True)
    (wanted.drafts / "source.gguf").write_text("half")
    with _drafts(wanted) as drafts:
        assert not [*drafts.iterdir()]
    assert not drafts.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_programs_end_with_the_command(number: signal.Signals) -> None:
    """llama.cpp's server would go on for ever, with the model in memory."""
    program = (
        "from llmhost.making.tools import Measured, end_with_programs\n"
        "end_with_programs()\n"
        "with Measured(['sleep', '300']) as running:\n"
        "    print(running._process.pid, flush=True)\n"
        "    running.wait()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = Path("/proc", process.stdout.readline().strip())
        assert child.exists()
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    assert not child.exists()


@pytest.mark.parametrize("wrong", [[0.0, 0.0], [None, 1.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_vectors_without_a_direction_are_refused(tmp_path: Path, wrong: list[float]) -> None:
    """A quantization may overflow; llama.cpp's server writes null for what is no number."""
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    files = tmp_path / "source", tmp_path / "result"

    class Made:
        def embedded(self, _job: Job, _tools: Tools, file: Path, *_: object) -> Embedded:
            second = wrong if file == files[1] else [1.0, 0.0]
            return Embedded([[[1.0, 0.0], second]], Speed(1, 1.0, "embeddings/s"))

    measured = Measurements(job(tmp_path), Tools(), cast(Way, Made()), files, files[0])
    wanted = Evaluation.model_validate({"agreement": str(tmp_path / "texts.txt"), "at_least": 0.98})
    with pytest.raises(MakingError, match="the result gives vectors of zeros, or of what is no"):
        measured.evaluation(wanted)


def test_scores_that_are_no_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As llama.cpp's server writes a score that is not a number."""

    def answer(_server: Reranker, path: str, _body: object) -> Json:
        if path == "/tokenize":
            return {"tokens": [1, 2]}
        return {"results": [{"index": 0, "relevance_score": None}]}

    monkeypatch.setattr(Reranker, "_ask", answer)
    reranker = Reranker(Tools(), tmp_path / "m.gguf", 512)
    with Measured(["true"]) as process:
        monkeypatch.setattr(reranker, "_process", process, raising=False)
        with pytest.raises(MakingError, match="its scores are no numbers"):
            reranker.score("What?", ["That."])


def test_make_reports_mistakes_in_a_record(tmp_path: Path) -> None:
    model = CODER | {"derive": {"quantize": "Q4", "evaluate": [PERPLEXITY]}}
    (tmp_path / "site.py").write_text(f"llm_servers = [('llm', {site(tmp_path, model)!r})]\n")
    status, output = run(tmp_path, "make", "site.py")
    assert status == 1 and "coder: derive.quantize: is 'Q4'; write" in output


def test_ndcg_is_that_of_the_benchmarks() -> None:
    """benchmarks/search has an nDCG of its own."""
    chance = random.Random(7)
    vectors = {str(n): [chance.gauss(0, 1) for _ in range(8)] for n in range(60)}
    questions = {f"q{n}": [chance.gauss(0, 1) for _ in range(8)] for n in range(12)}
    names = sorted(vectors)
    relevant = {name: set(chance.sample(names, 1 + n)) for n, name in enumerate(questions)}
    judged = {name: dict.fromkeys(right, 1.0) for name, right in relevant.items()}
    rankings = [
        sorted(vectors, key=lambda name: -collection.cosine(question, vectors[name]))
        for question in questions.values()
    ]
    both = Collection(dict.fromkeys(vectors, ""), dict.fromkeys(questions, ""), judged)
    found = collection.ndcg(both, vectors, questions)
    assert found == pytest.approx(judge(rankings, [*relevant.values()]).ndcg_at_10)


def test_collection_is_read_and_its_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "title": "A", "text": "wing"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "what lifts"}\n')
    judgements = tmp_path / "qrels" / "test.tsv"
    judgements.write_text("query-id\tcorpus-id\tscore\nq\td\t2\nq\tmissing\t1\n")
    found = Collection.read(tmp_path)
    assert (found.documents, found.judged) == ({"d": "A wing"}, {"q": {"d": 2.0}})
    judgements.write_text("query-id\tcorpus-id\tscore\nq\td\t0\n")
    with pytest.raises(CollectionError, match="has no question with a relevant document"):
        Collection.read(tmp_path)
    judgements.write_text("query-id\tcorpus-id\tscore\nq d 1\n")
    with pytest.raises(CollectionError, match="separated by tabs, in line 2"):
        Collection.read(tmp_path)
    (tmp_path / "corpus.jsonl").write_text('{"id": "d"}\n')
    with pytest.raises(CollectionError, match="in line 1"):
        Collection.read(tmp_path)


def test_texts_of_a_collection_may_have_other_ends_of_lines(tmp_path: Path) -> None:
    """They are valid in strings of JSON (RFC 8259, section 7)."""
    (tmp_path / "qrels").mkdir()
    text = "first\u2028second\u0085third"
    for name, key in (("corpus", "d"), ("queries", "q")):
        line = json.dumps({"_id": key, "text": text}, ensure_ascii=False)
        (tmp_path / f"{name}.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\n".encode())
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t2\n\n")
    found = Collection.read(tmp_path)
    assert (found.documents, found.questions) == ({"d": text}, {"q": text})
    (tmp_path / "queries.jsonl").write_text('{"_id": ' + "[" * 100_000)
    with pytest.raises(CollectionError, match="in line 1"):
        Collection.read(tmp_path)
    (tmp_path / "pairs.txt").write_text(f"{text}\t{text}\n")
    assert collection.lines_of(tmp_path / "pairs.txt") == [f"{text}\t{text}"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf:maker/Small-f16.gguf-repo", "Small-f16.gguf-repo-Q4_K_M.gguf"),
        ("hf:maker/Small/small-F16.gguf", "small-Q4_K_M.gguf"),
        ("weights/all-MiniLM-L6-v2", "all-MiniLM-L6-v2-Q4_K_M.gguf"),
        ("https://mirror.example.com/a/b.bf16.gguf", "b-Q4_K_M.gguf"),
    ],
)
def test_result_has_the_name_of_its_source(source: str, name: str) -> None:
    assert file_name(source, "Q4_K_M by the importance in text.txt") == name


def test_compressed_repository_has_the_name_of_its_scheme() -> None:
    recipe = "compress-W4A16 calibrated by texts.txt"
    assert file_name("hf:maker/Small-bf16", recipe) == "Small-W4A16"


@pytest.mark.parametrize("source", ["../../small", "..", "/", "../..", "/small"])
def test_result_stays_in_its_directory(source: str) -> None:
    parts = Path(file_name(source, "onnx-int8")).parts
    assert parts[0] == "onnx-int8" and len(parts) > 1 and not {"..", "/"} & {*parts}


@pytest.mark.parametrize("source", ["hf:maker/Small", "/srv/models/maker/Small"])
def test_repository_keeps_the_name_under_which_apps_find_it(source: str) -> None:
    assert file_name(source, "onnx-int8") == "onnx-int8/maker/Small"


def test_second_revision_of_a_source_does_not_move_the_first(tmp_path: Path) -> None:
    """The lock file has one pin for each source: production would get other weights."""
    made(tmp_path, UNPINNED)
    before = (tmp_path / "models.lock.json").read_text()
    plain = {k: v for k, v in UNPINNED.items() if k != "derive"}
    data = site(tmp_path, plain)
    data["models"] = [plain, plain | {"name": "coder-new", "revision": "cd" * 20}]
    (tmp_path / "site.py").write_text(f"llm_servers = [('llm', {data!r})]\n")
    for command in ("lock", "make"):
        status, output = run(tmp_path, command, "site.py")
        assert status == 1 and "coder and coder-new have the source" in output
    assert (tmp_path / "models.lock.json").read_text() == before


@pytest.mark.parametrize("lock", ["models.lock.json", "other.lock.json"])
def test_results_of_one_directory_have_different_names(tmp_path: Path, lock: str) -> None:
    other = CODER | {"name": "other", "revision": "cd" * 20, "sha256": "cd" * 32}
    first, second = site(tmp_path, CODER), site(tmp_path, other)
    second["stack_models_lock"] = str(tmp_path / lock)
    hosts = [("one", first), ("two", second)]
    (tmp_path / "site.py").write_text(f"llm_servers = {hosts!r}\n")
    status, output = run(tmp_path, "make", "site.py")
    assert status == 1 and "coder and other would both be made as small-Q4_K_M.gguf" in output


def test_scores_of_onnx_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """Sorted with them, the texts keep their order: what is relevant first."""
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "a"}\n{"_id": "2", "text": "b"}')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "b"}')
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    files = tmp_path / "source", tmp_path / "result"

    class Made:
        def scored(self, _job: Job, _tools: Tools, file: Path, *_: object) -> Scored:
            scores = [math.nan, math.nan] if file == files[1] else [0.0, 1.0]
            return Scored([scores], Speed(1, 1.0, "scores/s"))

    measured = Measurements(job(tmp_path), Tools(), cast(Way, Made()), files, files[0])
    wanted = Evaluation.model_validate({"rerank": str(tmp_path), "at_least": 0.98})
    with pytest.raises(MakingError, match="its scores are no numbers"):
        measured.evaluation(wanted)
