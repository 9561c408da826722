"""Models that are really compressed for vLLM, by llm-compressor on the CPU.

The source is SmolLM2, whose weights were dequantized from Q4_1: its figures show the mechanism, not
what a scheme costs a model that was never quantized. The real vLLM answers with such a result in
tests/engines/test_vllm_compressed.py.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmhost.inventory.reader import read_settings
from llmhost.making.llama import perplexity
from llmhost.making.tools import COMPRESSOR, Tools
from llmhost.models.files import shape_of
from testbed import environments, llama_tools, smollm2, trainable

pytestmark = [pytest.mark.making, pytest.mark.machines, pytest.mark.timeout(2400)]

DOCS = Path(__file__).parents[2] / "docs"
RESULT = "models.made/SmolLM2-135M-Instruct-{}"
Json = dict[str, Any]


def prose(name: str, size: int) -> str:
    """The beginning of one of our own documents."""
    return " ".join((DOCS / name).read_text().split())[:size]


def site(home: Path, scheme: str, at_most: float) -> Json:
    """An inventory with this model of vLLM, and the texts."""
    (home / "evaluation.txt").write_text(prose("operations.md", 6000))
    (home / "texts.txt").write_text(prose("gateway.md", 9000))
    place = trainable.repository()
    compress = {"scheme": scheme}
    if scheme != "FP8_DYNAMIC":
        compress["calibration"] = "texts.txt"
    evaluate = [{"perplexity": "evaluation.txt", "at_most": at_most}]
    record: Json = {"name": "coder", "service": "vllm", "source": str(place)}
    record["files"] = [
        {"path": each.name, "sha256": hashlib.sha256(each.read_bytes()).hexdigest()}
        for each in sorted(place.iterdir())
    ]
    record |= {"context_tokens": 512, "derive": {"compress": compress, "evaluate": evaluate}}
    data: Json = {"services": ["vllm"], "models": [record]}
    data |= {"api_clients": [{"name": "app", "sha256": "ab" * 32}]}
    (home / "site.py").write_text(f"llm_servers = [('llm', {data!r})]\n")
    return data | {"stack_models_lock": str(home / "models.lock.json")}


def make(home: Path) -> subprocess.CompletedProcess[str]:
    tools = environments.installed("compress") / "bin"
    command = [sys.executable, "-m", "llmhost.cli", "model", "make", "site.py"]
    command += ["--tools", str(tools), "--threads", "1", "--json"]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=1800)


def made(home: Path) -> Json:
    """The entry of the lock file."""
    done = make(home)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    locked = json.loads((home / "models.lock.json").read_text())["models"].values()
    (entry,) = (each for each in locked if "input" in each)
    return dict(entry)


def tensors(file: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Type, shape and bytes of each tensor of a safetensors file."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header: Mapping[str, Any] = json.loads(data[8 : 8 + size])
    found = {}
    for name, each in header.items():
        if name != "__metadata__":
            start, end = (8 + size + offset for offset in each["data_offsets"])
            found[name] = (each["dtype"], each["shape"], data[start:end])
    return found


def e4m3(content: bytes) -> NDArray[np.float32]:
    """8-bit floating point, by its definition: a sign, four bits of exponent, three of fraction."""
    bits = np.frombuffer(content, np.uint8).astype(np.int32)
    exponent, fraction = bits >> 3 & 15, (bits & 7) / 8
    normal = (1 + fraction) * 2.0 ** (exponent - 7)
    found = np.where(exponent == 0, fraction * 2.0**-6, normal) * np.where(bits >> 7, -1, 1)
    return found.astype(np.float32)


def bf16(content: bytes) -> NDArray[np.float32]:
    """The upper halves of 32-bit numbers."""
    return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32)


@pytest.fixture(scope="module")
def fp8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json, Json]:
    """A directory with SmolLM2 as FP8_DYNAMIC: the site, and the entry of the lock file."""
    home = tmp_path_factory.mktemp("fp8")
    data = site(home, "FP8_DYNAMIC", 1.1)
    return home, data, made(home)


def test_size_speed_and_accuracy_are_recorded(fp8: tuple[Path, Json, Json]) -> None:
    home, data, entry = fp8
    before, after = entry["report"]["before"], entry["report"]["after"]
    assert before["bytes"] > 530_000_000 and after["bytes"] < 0.31 * before["bytes"]
    for each in (before, after):
        assert each["rate"] > 0 and each["unit"] == "tokens/s" and each["memory_bytes"] > 5e8
    (evaluation,) = entry["evaluations"]
    assert 0.99 < evaluation["value"] <= evaluation["limit"]
    assert entry["tools"][COMPRESSOR].startswith("llmcompressor 0.")
    assert (home / RESULT.format("FP8_DYNAMIC") / "tokenizer.json").is_file()
    (found,) = read_settings(data).models
    shape = shape_of(found)
    assert shape and 0 <= after["bytes"] - shape.weights_bytes < 100_000


def test_perplexity_is_that_of_llama_perplexity(fp8: tuple[Path, Json, Json]) -> None:
    """Another program, with the same weights in the GGUF that the repository was made of."""
    home, _, entry = fp8
    tools = Tools(llama_tools.directory(), 1)
    expected = perplexity(tools, smollm2.gguf(), str(home / "evaluation.txt"))
    assert entry["evaluations"][0]["before"] == pytest.approx(expected, rel=0.02)


def test_weights_are_those_of_the_source_in_eight_bits(fp8: tuple[Path, Json, Json]) -> None:
    """Read and multiplied by their scales by NumPy alone."""
    home, _, _ = fp8
    source = trainable.tensors(trainable.repository() / "model.safetensors")
    result = tensors(home / RESULT.format("FP8_DYNAMIC") / "model.safetensors")
    layers = [name for name, (kind, _, _) in result.items() if kind == "F8_E4M3"]
    assert len(layers) == 7 * trainable.LAYERS
    for name in layers[::10]:
        _, shape, content = result[name]
        scales = bf16(result[f"{name}_scale"][2])[:, None]
        values = e4m3(content).reshape(shape) * scales
        # Half a step of three bits, what scales and weights in BF16 lose, and the smallest steps.
        allowed = np.abs(source[name]) * (2.0**-4 + 2.0**-7) + scales * 2.0**-9
        assert (np.abs(values - source[name]) <= allowed).all(), name


def test_second_run_makes_nothing_and_a_third_the_same(fp8: tuple[Path, Json, Json]) -> None:
    home, _, entry = fp8
    weights = home / RESULT.format("FP8_DYNAMIC") / "model.safetensors"
    state = weights.stat().st_mtime_ns
    assert made(home)["files"] == entry["files"] and weights.stat().st_mtime_ns == state
    shutil.rmtree(weights.parent)
    assert made(home)["files"] == entry["files"] and weights.stat().st_mtime_ns != state


def test_limit_that_is_missed_stops_and_leaves_nothing(tmp_path: Path) -> None:
    site(tmp_path, "FP8_DYNAMIC", 1.001)
    stopped = make(tmp_path)
    output = " ".join(stopped.stderr.split())
    assert stopped.returncode == 1 and "Traceback" not in output
    assert "loses too much accuracy as compress-FP8_DYNAMIC, and nothing was recorded" in output
    assert "and at most 1.001 is allowed: 0.0" in output and "too much" in output
    assert not (tmp_path / "models.lock.json").exists()
    assert not [*(tmp_path / "models.made").rglob("*")]


def test_four_bits_are_in_groups_that_fit_the_layers(tmp_path: Path) -> None:
    """576 columns are no multiple of 128, the usual size."""
    site(tmp_path, "W4A16", 1.5)
    entry = made(tmp_path)
    assert 1 < entry["evaluations"][0]["value"] < 1.5
    before, after = entry["report"]["before"], entry["report"]["after"]
    assert after["bytes"] < 0.24 * before["bytes"]
    result = tmp_path / RESULT.format("W4A16")
    config = json.loads((result / "config.json").read_text())["quantization_config"]
    assert config["config_groups"]["group_0"]["weights"]["group_size"] == 64
    name = "model.layers.0.mlp.down_proj.weight"
    kind, shape, content = tensors(result / "model.safetensors")[f"{name}_packed"]
    assert (kind, shape) == ("I32", [576, 1536 // 8])
    scales = bf16(tensors(result / "model.safetensors")[f"{name}_scale"][2]).reshape(576, -1)
    numbers = np.frombuffer(content, np.uint32).reshape(shape)
    values = (numbers[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).reshape(576, 1536)
    found = (values.astype(np.float32) - 8) * np.repeat(scales, 64, axis=1)
    expected = trainable.tensors(trainable.repository() / "model.safetensors")[name]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98
