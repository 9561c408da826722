"""Models that are really made: by llama.cpp's converter, quantizer, server and perplexity, and by
PyTorch and ONNX Runtime.

all-MiniLM-L6-v2 is trained and in F32: what its results lose is evidence. SmolLM2's package has
Q4_1 only: what is made of it shows the mechanism, and its figures say nothing about a quantization.
"""

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.search.cranfield import Cranfield
from llmhost.inventory.reader import read_settings
from llmhost.making.llama import Embedder
from llmhost.making.tools import Tools
from llmhost.models.files import gguf_at, shape_of
from llmhost.models.hub_cache import repository
from testbed import llama_tools, minilm, smollm2
from testbed.engine import engine_archive
from testbed.process import wait_until
from tests.engines.container import EngineImage, container

pytestmark = [pytest.mark.making, pytest.mark.machines, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
CRANFIELD = ROOT.parent / "shared" / "cranfield"
QUESTIONS = 10
DOCUMENTS = 80
Json = dict[str, Any]


@pytest.fixture(scope="module")
def tools() -> Path:
    return llama_tools.directory()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's directory: the repository of all-MiniLM, texts, and a part of Cranfield."""
    place = tmp_path_factory.mktemp("making")
    (place / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    if CRANFIELD.is_dir():
        _write_collection(Cranfield.read(CRANFIELD), place / "cranfield")
    return place


TEXTS = (
    "A cat sits on the mat.",
    "Who built the lighthouse of Velmora?",
    "The boundary layer separates behind the wing.",
    "Rust never sleeps, but iron does.",
    "How many tokens fit into the context of this model?",
    "Invoices are due within thirty days of delivery.",
    "The patient was given 200 mg of ibuprofen twice a day.",
    "def add(a, b): return a + b",
)


def _write_collection(found: Cranfield, place: Path) -> None:
    """The first questions, all that is relevant for them, and other documents."""
    relevant = found.relevant[:QUESTIONS]
    wanted = set().union(*relevant)
    others = [name for name in found.documents if name not in wanted]
    names = [*sorted(wanted & {*found.documents}), *others[: max(0, DOCUMENTS - len(wanted))]]
    (place / "qrels").mkdir(parents=True)
    rows = [{"_id": name, "text": found.documents[name]} for name in names]
    (place / "corpus.jsonl").write_text(_lines(rows))
    rows = [{"_id": str(n), "text": text} for n, text in enumerate(found.questions[:QUESTIONS])]
    (place / "queries.jsonl").write_text(_lines(rows))
    judged = [f"{n}\t{name}\t1\n" for n, names in enumerate(relevant) for name in sorted(names)]
    text = "".join(["query-id\tcorpus-id\tscore\n", *judged])
    (place / "qrels" / "test.tsv").write_text(text)


def _lines(rows: Sequence[Json]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def model(derive: Json, **options: Any) -> Json:
    home = minilm.repository()
    return {
        "name": "embedding",
        "service": "embeddings",
        "task": "embed",
        "source": str(home),
        "files": minilm.pinned_files(),
        "context_tokens": minilm.CONTEXT_TOKENS,
        "derive": derive,
        **options,
    }


def site(home: Path, record: Json) -> Json:
    data: Json = {"services": [record["service"]], "models": [record]}
    data |= {"api_clients": [{"name": "app", "sha256": "ab" * 32}]}
    (home / "site.py").write_text(f"llm_servers = [('llm', {data!r})]\n")
    return data | {"stack_models_lock": str(home / "models.lock.json")}


def make(home: Path, tools: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmhost.cli", "model", "make", "site.py"]
    command += ["--tools", str(tools), "--threads", "1", "--json", *options]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=900)


def made(home: Path, tools: Path, *options: str) -> Json:
    done = make(home, tools, *options)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    (reported,) = json.loads(done.stdout)["models"]
    locked = json.loads((home / "models.lock.json").read_text())["models"].values()
    (entry,) = (each for each in locked if "input" in each)
    assert reported["file"] == entry["file"] and reported["after"] == entry["report"]["after"]
    return dict(entry)


@pytest.fixture(scope="module")
def quantized(home: Path, tools: Path) -> Iterator[tuple[Json, Json]]:
    """all-MiniLM as Q8_0: the site, and the entry of the lock file."""
    evaluate: list[Json] = [{"agreement": "texts.txt", "at_least": 0.99}]
    if CRANFIELD.is_dir():
        evaluate.append({"ndcg": "cranfield", "at_least": 0.97})
    data = site(home, model({"quantize": "Q8_0", "evaluate": evaluate}))
    yield data, made(home, tools)


def test_accuracy_size_and_speed_are_recorded(quantized: tuple[Json, Json]) -> None:
    _, entry = quantized
    before, after = entry["report"]["before"], entry["report"]["after"]
    assert before["bytes"] > 85_000_000 and after["bytes"] < before["bytes"] * 0.3
    assert after["memory_bytes"] < before["memory_bytes"]
    assert before["rate"] > 0 and after["unit"] == "embeddings/s"
    assert {*entry["tools"]} == {"llama-quantize", "convert_hf_to_gguf.py", "llama-server"}
    assert all("build" in version for version in entry["tools"].values())
    for each in entry["evaluations"]:
        assert each["limit"] <= each["value"] < 1.03
        if each["measure"] == "ndcg":
            # What the same model reaches on all of Cranfield is 0.395; fewer documents are easier.
            assert 0.35 < each["before"] < 0.9


def test_result_is_quantized_and_says_so(home: Path, quantized: tuple[Json, Json]) -> None:
    _, entry = quantized
    found = gguf_at(str(home / "models.made" / entry["file"]))
    kinds = {tensor.kind for tensor in found.tensors if len(tensor.shape) > 1}
    assert "Q8_0" in kinds and not {"F16", "F32"} & {
        tensor.kind for tensor in found.tensors if tensor.name.endswith("ffn_up.weight")
    }
    assert found.metadata["general.file_type"] == 7 and found.metadata["bert.pooling_type"] == 1


def test_vectors_are_those_of_numpy(home: Path, tools: Path, quantized: tuple[Json, Json]) -> None:
    """tests/engines/test_embeddings.py has vectors that NumPy calculated from the same weights."""
    from tests.engines.test_embeddings import VECTORS

    _, entry = quantized
    file = home / "models.made" / entry["file"]
    with Embedder(Tools(tools, 1), file, minilm.CONTEXT_TOKENS) as embedder:
        for text, expected in VECTORS.items():
            (vector,) = embedder.embed([text])
            assert vector[: len(expected)] == pytest.approx(expected, abs=0.01)


def test_service_embeds_with_the_result(home: Path, quantized: tuple[Json, Json]) -> None:
    """The real engine, as a server runs it, with the file that a deploy uploads."""
    data, entry = quantized
    settings = read_settings(data)
    (found,) = settings.models
    assert found.sha256 == entry["sha256"]
    shape = shape_of(found)
    assert shape and shape.weights_bytes < 0.3 * entry["report"]["before"]["bytes"]
    place = home / "engine"
    place.mkdir()
    with container(settings, "embeddings", EngineImage(engine_archive()), place) as engine:
        body = {"model": "embedding", "input": "A cat sits on the mat."}
        answer = httpx.post(f"{engine.url}/v1/embeddings", json=body, timeout=60).json()
        assert len(answer["data"][0]["embedding"]) == 384


def test_second_run_makes_nothing(home: Path, tools: Path, quantized: tuple[Json, Json]) -> None:
    _, entry = quantized
    file = home / "models.made" / entry["file"]
    state = file.stat().st_mtime_ns
    assert made(home, tools)["sha256"] == entry["sha256"]
    assert file.stat().st_mtime_ns == state


def test_same_machine_makes_the_same_file_again(
    home: Path, tools: Path, tmp_path: Path, quantized: tuple[Json, Json]
) -> None:
    _, entry = quantized
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    evaluate = [{"agreement": "texts.txt", "at_least": 0.9}]
    site(tmp_path, model({"quantize": "Q8_0", "evaluate": evaluate}))
    again = made(tmp_path, tools)
    assert again["sha256"] == entry["sha256"]
    content = (tmp_path / "models.made" / again["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]


def test_limit_that_is_missed_stops_and_leaves_nothing(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    evaluate = [{"agreement": "texts.txt", "at_least": 0.9999}]
    data = site(tmp_path, model({"quantize": "Q4_K_M", "evaluate": evaluate}))
    stopped = make(tmp_path, tools)
    output = " ".join(stopped.stderr.split())
    assert stopped.returncode == 1 and "Traceback" not in output
    assert "loses too much accuracy as Q4_K_M, and nothing was recorded" in output
    assert "and at least 0.9999 is needed: 0.0" in output and "too little" in output
    assert not (tmp_path / "models.lock.json").exists()
    assert not [*(tmp_path / "models.made").rglob("*.gguf")]
    data["models"][0]["derive"]["evaluate"][0]["at_least"] = 0.97
    site(tmp_path, data["models"][0])
    entry = made(tmp_path, tools)
    assert 0.97 <= entry["evaluations"][0]["value"] < 0.9999


@pytest.fixture(scope="module")
def onnx_home(tmp_path_factory: pytest.TempPathFactory, tools: Path) -> tuple[Path, Json, Json]:
    """A directory with all-MiniLM as int8 ONNX for an app: the site, and the lock file's entry."""
    place = tmp_path_factory.mktemp("onnx")
    (place / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    # With one scale for all columns of a matrix, this is 0.98.
    evaluate: list[Json] = [{"agreement": "texts.txt", "at_least": 0.99}]
    if CRANFIELD.is_dir():
        _write_collection(Cranfield.read(CRANFIELD), place / "cranfield")
        evaluate.append({"ndcg": "cranfield", "at_least": 0.95})
    derive = {"onnx": {"precision": "int8"}, "evaluate": evaluate}
    data = site(place, model(derive, service="web"))
    return place, data, made(place, tools)


def test_onnx_is_a_quarter_and_keeps_its_accuracy(onnx_home: tuple[Path, Json, Json]) -> None:
    _, _, entry = onnx_home
    before, after = entry["report"]["before"], entry["report"]["after"]
    assert before["bytes"] > 85_000_000 and after["bytes"] < before["bytes"] * 0.3
    assert after["memory_bytes"] < before["memory_bytes"]
    assert "onnxruntime" in entry["tools"]["python3"] and "torch" in entry["tools"]["python3"]
    for each in entry["evaluations"]:
        assert each["limit"] <= each["value"] < 1.05


def test_onnx_vectors_are_those_of_numpy(onnx_home: tuple[Path, Json, Json]) -> None:
    """By another ONNX Runtime and tokenizer than those that measured it."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    from tests.engines.test_embeddings import VECTORS

    home, _, entry = onnx_home
    result = home / "models.made" / entry["file"]
    session = onnxruntime.InferenceSession(str(result / "onnx" / "model_quantized.onnx"))
    tokenizer = Tokenizer.from_file(str(result / "tokenizer.json"))
    tokenizer.no_padding()
    for text, expected in VECTORS.items():
        tokens = tokenizer.encode(text)
        fields = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask}
        fields["token_type_ids"] = tokens.type_ids
        inputs = {name: np.array([each], np.int64) for name, each in fields.items()}
        vector = np.asarray(session.run(None, inputs)[0])[0].mean(axis=0)
        vector /= np.linalg.norm(vector)
        assert vector[: len(expected)] == pytest.approx(expected, abs=0.03)


def test_app_gets_the_onnx_files_under_the_name_of_the_repository(
    onnx_home: tuple[Path, Json, Json],
) -> None:
    home, data, _ = onnx_home
    app = {"name": "web", "image": f"docker.io/web@sha256:{'ab' * 32}", "container_port": 3000}
    app |= {"health": ["true"], "port": 8100}
    (found,) = read_settings(data | {"services": [], "apps": [app]}).models
    name = "/".join(minilm.repository().parts[-2:])
    assert found.source == str(home / "models.made" / "onnx-int8" / name)
    assert repository(found) == name
    paths = [file.path for file in found.files]
    assert "onnx/model_quantized.onnx" in paths and "tokenizer.json" in paths
    assert not [path for path in paths if path.endswith(".safetensors")]
    for file in found.files:
        content = Path(found.source, file.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256


def test_same_machine_makes_the_same_onnx_again(
    onnx_home: tuple[Path, Json, Json], tools: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    evaluate = [{"agreement": "texts.txt", "at_least": 0.9}]
    derive = {"onnx": {"precision": "int8"}, "evaluate": evaluate}
    site(tmp_path, model(derive, service="web"))
    assert made(tmp_path, tools)["files"] == onnx_home[2]["files"]


def test_generating_model_is_measured_by_perplexity_mechanism_only(
    tools: Path, tmp_path: Path
) -> None:
    """From Q4_1, which is quantized already: this shows that the steps work, not what they cost."""
    text = " ".join((ROOT / "docs" / "operations.md").read_text().split())[:6000]
    (tmp_path / "evaluation.txt").write_text(text)
    derive: Json = {"quantize": "Q4_K_M", "importance": "evaluation.txt"}
    derive["evaluate"] = [{"perplexity": "evaluation.txt", "at_most": 1.5}]
    record: Json = {"name": "coder", "service": "llamacpp", "source": str(smollm2.gguf())}
    record |= {"sha256": smollm2.SHA256, "context_tokens": 512, "derive": derive}
    site(tmp_path, record)
    refused = make(tmp_path, tools)
    assert refused.returncode == 1
    assert "quantized already (Q4_1" in " ".join(refused.stderr.split())
    derive["from_quantized"] = True
    site(tmp_path, record)
    entry = made(tmp_path, tools)
    (evaluation,) = entry["evaluations"]
    assert 1 < evaluation["before"] < 100
    assert evaluation["value"] == pytest.approx(
        evaluation["after"] / evaluation["before"], abs=1e-4
    )
    assert entry["report"]["after"]["unit"] == "tokens/s" and entry["report"]["after"]["rate"] > 0
    assert "llama-imatrix" in entry["tools"]
    found = gguf_at(str(tmp_path / "models.made" / entry["file"]))
    assert found.metadata["general.file_type"] == 15


def test_real_engine_answers_a_comparison(tools: Path, tmp_path: Path) -> None:
    """llama.cpp's server, which takes any name of a model, with SmolLM2 for both."""
    (tmp_path / "questions.txt").write_text("What is the capital of France?\n")
    models = [
        {"name": name, "service": "ollama", "source": str(smollm2.gguf()), "sha256": smollm2.SHA256}
        for name in ("brain", "brain-new")
    ]
    data = {"services": ["ollama"], "models": models, "gateway_tls": "off"}
    data["api_clients"] = [{"name": "app", "sha256": "ab" * 32}]
    (tmp_path / "site.py").write_text(f"hosts = [('llm', {data!r})]\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [str(tools / "llama-server"), "--model", str(smollm2.gguf()), "--port", port]
    command += ["--ctx-size", "512", "--parallel", "1", "--threads", "1"]
    with (tmp_path / "server.log").open("w") as log:
        engine = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        assert wait_until(lambda: _healthy(port), 120)
        words = [sys.executable, "-m", "llmhost.cli", "compare", "site.py", "brain", "brain-new"]
        words += ["--questions", "questions.txt", "--tokens", "12", "--json"]
        words += ["--url", f"http://127.0.0.1:{port}", "--key", "env:HOME"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    finally:
        engine.kill()
        engine.wait(10)
    assert done.returncode == 0, done.stderr
    (asked,) = json.loads(done.stdout)["questions"]
    for each in (asked["first"], asked["second"]):
        assert len(each["text"].split()) > 2 and 0 < each["tokens"] <= 12
        assert 0 < each["first_seconds"] < each["seconds"]


def _healthy(port: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
