"""Quantization of a generative model that is trained here, from F16: what each type really costs.

The judge of llama.cpp's perplexity is PyTorch, which calculates it from the same safetensors.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.search.cranfield import Cranfield
from llmhost.models.files import gguf_at
from testbed import llama_tools, trained_llama
from testbed.trained_llama import Trained

ROOT = Path(__file__).parents[2]
CRANFIELD = ROOT.parent / "shared" / "cranfield"
pytestmark = [
    pytest.mark.making,
    pytest.mark.machines,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not CRANFIELD.is_dir(), reason="needs the texts of ../shared/cranfield"),
]
HELD_OUT = 40
"""One document of so many is only for the evaluation."""
LIMITS = {"Q8_0": 1.01, "Q4_K_M": 1.05, "Q3_K_M": 1.2}
Json = dict[str, Any]


@pytest.fixture(scope="module")
def tools() -> Path:
    return llama_tools.directory()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A site's directory with texts and the repository `Small`."""
    home = tmp_path_factory.mktemp("generative")
    documents = [*Cranfield.read(CRANFIELD).documents.values()]
    known = [text for place, text in enumerate(documents) if place % HELD_OUT]
    (home / "text.txt").write_text(" ".join(known))
    (home / "evaluation.txt").write_text(" ".join(documents[::HELD_OUT]))
    (home / "calibration.txt").write_text(" ".join(known[:40]))
    return home, trained_llama.write(home / "text.txt", home / "evaluation.txt", home / "Small")


def record(home: Path, quantize: str, limit: float) -> Json:
    files = [
        {"path": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted((home / "Small").iterdir())
    ]
    derive: Json = {"quantize": quantize}
    derive["evaluate"] = [{"perplexity": "evaluation.txt", "at_most": limit}]
    if quantize.startswith("Q3"):
        derive["importance"] = "calibration.txt"
    found: Json = {"name": quantize.lower(), "service": "ollama", "source": str(home / "Small")}
    return found | {"files": files, "context_tokens": 512, "derive": derive}


def make(home: Path, tools: Path, records: list[Json]) -> subprocess.CompletedProcess[str]:
    data: Json = {"services": ["ollama"], "models": records}
    data |= {"api_clients": [{"name": "app", "sha256": "ab" * 32}]}
    (home / "site.py").write_text(f"llm_servers = [('llm', {data!r})]\n")
    command = [sys.executable, "-m", "llmhost.cli", "model", "make", "site.py", "--json"]
    command += ["--tools", str(tools), "--threads", "1"]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=1200)


@pytest.fixture(scope="module")
def made(trained: tuple[Path, Trained], tools: Path) -> dict[str, Json]:
    """What is reported of each type."""
    home, _ = trained
    done = make(home, tools, [record(home, *each) for each in LIMITS.items()])
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    models = json.loads(done.stdout)["models"]
    return dict(zip(LIMITS, models, strict=True))


def test_model_is_trained(trained: tuple[Path, Trained]) -> None:
    """Untrained, it would guess one of 1024 tokens."""
    _, found = trained
    print(found)
    assert 900 < found.untrained < 1300
    assert found.trained < found.untrained / 5


def test_perplexity_of_the_source_is_that_of_pytorch(
    trained: tuple[Path, Trained], made: dict[str, Json]
) -> None:
    _, judged = trained
    for each in made.values():
        assert each["evaluations"][0]["before"] == pytest.approx(judged.trained, rel=0.01)


def test_fewer_bits_cost_more_and_each_type_keeps_its_limit(made: dict[str, Json]) -> None:
    values = [each["evaluations"][0]["value"] for each in made.values()]
    assert values == sorted(values)
    assert values[0] == pytest.approx(1, abs=0.01) and values[0] < values[-1]
    assert all(value <= limit for value, limit in zip(values, LIMITS.values(), strict=True))


def test_size_memory_and_speed_are_reported(made: dict[str, Json]) -> None:
    """Bits of each weight: 16, and about 8.5, 4.8 and 3.9 with a little for the larger types of
    some tensors."""
    for each, share in zip(made.values(), (0.56, 0.4, 0.35), strict=True):
        before, after = each["before"], each["after"]
        assert before["bytes"] > 7_500_000 and after["bytes"] < before["bytes"] * share
        assert before["memory_bytes"] > 0 and after["memory_bytes"] > 0
        assert before["unit"] == after["unit"] == "tokens/s"
        assert before["rate"] > 0 and after["rate"] > 0
    sizes = [each["after"]["bytes"] for each in made.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_types_are_those_that_are_declared(
    trained: tuple[Path, Trained], made: dict[str, Json]
) -> None:
    """Numbers of llama.cpp's file types. No row was too short for a K-quant."""
    for name, number, kind in (("Q8_0", 7, "Q8_0"), ("Q4_K_M", 15, "Q4_K"), ("Q3_K_M", 12, "Q3_K")):
        found = gguf_at(str(trained[0] / "models.made" / made[name]["file"]))
        assert found.metadata["general.file_type"] == number
        assert kind in {tensor.kind for tensor in found.tensors}
        assert not {"F16", "Q5_0", "IQ4_NL"} & {tensor.kind for tensor in found.tensors}


def test_tokens_without_their_order_are_refused(
    trained: tuple[Path, Trained], tools: Path, tmp_path: Path
) -> None:
    """llama.cpp's converter would succeed, and the model would read other tokens than it learned:
    a perplexity of 210 instead of 171."""
    shutil.copytree(trained[0] / "Small", tmp_path / "Small")
    shutil.copy(trained[0] / "evaluation.txt", tmp_path)
    (tmp_path / "Small" / "tokenizer.model").unlink()
    done = make(tmp_path, tools, [record(tmp_path, "Q8_0", LIMITS["Q8_0"])])
    assert done.returncode == 1
    assert "add tokenizer.model to its files" in " ".join(done.stderr.split())
    assert not (tmp_path / "models.lock.json").exists()


DAMAGE = """#!{python}
import os, subprocess, sys
done = subprocess.run([{tool!r}, *sys.argv[1:]])
size = os.path.getsize(sys.argv[-2])
with open(sys.argv[-2], "r+b") as file:
    file.seek(size // 4)
    file.write(b"\\x33" * (size // 4))
sys.exit(done.returncode)
"""


def test_damaged_result_is_refused(
    trained: tuple[Path, Trained], tools: Path, tmp_path: Path
) -> None:
    """By a tool that succeeds, and writes 11.5 for a quarter of the weights."""
    shutil.copytree(trained[0] / "Small", tmp_path / "Small")
    shutil.copy(trained[0] / "evaluation.txt", tmp_path)
    broken = tmp_path / "tools"
    shutil.copytree(tools, broken)
    tool = broken / "llama-quantize"
    tool.write_text(DAMAGE.format(python=sys.executable, tool=str(tools / "llama-quantize")))
    done = make(tmp_path, broken, [record(tmp_path, "Q8_0", LIMITS["Q8_0"])])
    output = " ".join(done.stderr.split())
    assert done.returncode == 1 and "Traceback" not in output
    assert "q8_0 loses too much accuracy as Q8_0, and nothing was recorded" in output
    assert not (tmp_path / "models.lock.json").exists()
