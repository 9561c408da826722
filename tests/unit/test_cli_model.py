"""`llmhost model` against doubles of the hubs."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.cli.hub import HubError, Hubs
from llmhost.docker.image_scripts import download_script, upload_path, verify_script
from llmhost.inventory.reader import read_settings
from llmhost.options.model_source import HubSource, OllamaSource, parse_source
from llmhost.stack.project import service_images
from tests.doubles.hub import COMMIT, Hub, hub

Said = subprocess.CompletedProcess[str]
WEIGHTS = b"weights of a model"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
GGUF = "hf:maker/small-GGUF/small-Q8_0.gguf"


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub() as double:
        double.files = {
            "maker/small-GGUF/small-Q8_0.gguf": WEIGHTS,
            "maker/small-GGUF/README.md": b"---",
            "maker/whole/config.json": b"{}",
            "maker/whole/model.safetensors": WEIGHTS,
            "maker/whole/original/model.pth": b"the same in another format",
            "maker/whole/.gitattributes": b"",
            "maker/old/pytorch_model.bin": WEIGHTS,
            "maker/small-ONNX/config.json": b"{}",
            "maker/small-ONNX/tokenizer.json": b"{}",
            "maker/small-ONNX/onnx/model.onnx": b"graph",
            "maker/small-ONNX/onnx/model.onnx_data": b"weights",
            "maker/small-ONNX/onnx/model_quantized.onnx": WEIGHTS,
        }
        double.large = {"maker/small-GGUF/small-Q8_0.gguf", "maker/whole/model.safetensors"}
        double.cards = {"maker/small-GGUF": {"license": "mit", "base_model": "origin/Large"}}
        manifest = {"config": {"digest": f"sha256:{'1' * 64}", "size": 5}}
        manifest |= {"layers": [{"digest": f"sha256:{'2' * 64}", "size": 7}]}  # type: ignore[dict-item]
        double.manifests = {"bona/bge-m3-korean/manifests/latest": json.dumps(manifest).encode()}
        yield double


def run(folder: Path, served: Hub | None, *arguments: str, token: str = "") -> Said:
    addresses = {}
    if served:
        addresses = {"HF_ENDPOINT": served.url, "LLMHOST_OLLAMA_LIBRARY": served.url}
    return subprocess.run(
        [sys.executable, "-m", "llmhost.cli", "model", *arguments],
        cwd=folder,
        env=os.environ | addresses | {"HF_TOKEN": token, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def inventory(folder: Path, *models: dict[str, Any], **options: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        "services": ["ollama", "vllm"],
        "models": [*models],
        "api_clients": [{"name": "app", "sha256": "ab" * 32}],
        **options,
    }
    (folder / "site.py").write_text(f"servers = [('llm', {data!r})]\n")
    return data | {"stack_models_lock": str(folder / "models.lock.json")}


MODELS: tuple[dict[str, Any], ...] = (
    {"name": "brain", "service": "ollama", "source": GGUF},
    {"name": "embed", "service": "ollama", "source": "ollama:bona/bge-m3-korean:latest"},
    {"name": "whole", "service": "vllm", "source": "hf:maker/whole"},
)


def test_lock_pins_every_model_and_the_deploy_takes_it(tmp_path: Path, served: Hub) -> None:
    data = inventory(tmp_path, *MODELS)
    locked = run(tmp_path, served, "lock", "site.py")
    assert locked.returncode == 0, locked.stderr
    brain, embed, whole = read_settings(data).models
    assert (brain.revision, brain.sha256) == (COMMIT, SHA256)
    assert (brain.licence, brain.base_models) == ("mit", ("origin/Large",))
    assert [file.path for file in embed.files] == [
        "manifest",
        f"sha256-{'1' * 64}",
        f"sha256-{'2' * 64}",
    ]
    pins = {file.path: file.sha256 for file in whole.files}
    assert pins == {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "model.safetensors": SHA256,
    }


def test_lock_of_one_part_pins_all_parts_of_the_file(tmp_path: Path, served: Hub) -> None:
    parts = [f"q4/m-0000{number}-of-00002.gguf" for number in (1, 2)]
    served.files |= {f"maker/parts/{part}": part.encode() for part in parts}
    model = {"name": "large", "service": "ollama", "source": f"hf:maker/parts/{parts[0]}"}
    data = inventory(tmp_path, model | {"service": "llamacpp"}) | {"services": ["llamacpp"]}
    locked = run(tmp_path, served, "lock", "site.py")
    assert locked.returncode == 0, locked.stderr
    (large,) = read_settings(data).models
    pins = {file.path: file.sha256 for file in large.files}
    assert pins == {part: hashlib.sha256(part.encode()).hexdigest() for part in parts}
    assert [*large.places.values()][1].endswith(f"/resolve/{COMMIT}/{parts[1]}")
    del served.files[f"maker/parts/{parts[1]}"]
    (tmp_path / "models.lock.json").unlink()
    refused = run(tmp_path, served, "lock", "site.py")
    assert refused.returncode != 0 and f"does not contain {parts[1]}" in " ".join(
        refused.stderr.split()
    )


def test_locked_source_is_not_asked_for_again_and_is_listed(tmp_path: Path, served: Hub) -> None:
    inventory(tmp_path, MODELS[1])
    run(tmp_path, served, "add", "brain", GGUF)
    added = (tmp_path / "models.lock.json").read_text()
    assert SHA256 in added and COMMIT in added
    served.asked.clear()
    inventory(tmp_path, MODELS[0], MODELS[1])
    assert run(tmp_path, served, "lock", "site.py").returncode == 0
    assert not any("small-GGUF" in path for path in served.asked)
    listed = run(tmp_path, served, "list", "site.py").stdout
    assert SHA256[:12] in listed and COMMIT[:12] in listed and "3 files" in listed


def test_mirror_of_the_inventory_is_for_locking_and_for_downloading(
    tmp_path: Path, served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = {"stack_huggingface_url": served.url, "stack_ollama_library_url": f"{served.url}/"}
    data = inventory(tmp_path, *MODELS, **mirrors)
    nowhere = "http://127.0.0.1:1"
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    monkeypatch.setenv("LLMHOST_OLLAMA_LIBRARY", nowhere)
    locked = run(tmp_path, None, "lock", "site.py")
    assert locked.returncode == 0, locked.stderr
    images = service_images(read_settings(data))
    files = [file for image in images for model in image.models for file in model.files]
    assert all(file.source.startswith(f"{served.url}/") for file in files) and len(files) == 6
    (weights,) = [file for file in files if file.source.endswith(".gguf")]
    uploads = str(tmp_path)
    for script in (download_script, verify_script):
        subprocess.run(["sh", "-c", script("brain", weights, uploads)], check=True, text=True)
    assert Path(upload_path(weights, uploads)).read_bytes() == WEIGHTS


def test_mirror_of_the_environment_is_named_as_for_locking_only(
    tmp_path: Path, served: Hub
) -> None:
    inventory(tmp_path, MODELS[0])
    locked = run(tmp_path, served, "lock", "site.py")
    assert "HF_ENDPOINT is for locking only: set stack_huggingface_url" in locked.stderr


def pins(served: Hub, source: str, monkeypatch: pytest.MonkeyPatch, token: str = "") -> Any:
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_TOKEN", token)
    origin = parse_source(source)
    assert not isinstance(origin, str)
    with Hubs() as hubs:
        return hubs.pins(origin, None)


FAULTS = {
    "does not contain this file; it contains small-Q8_0.gguf, ": "hf:maker/small-GGUF/large.gguf",
    "or its revision does not exist": "hf:nobody/nothing/a.gguf",
    "contains no safetensors files; it contains pytorch_model.bin": "hf:maker/old",
    "only ONNX files: select files with include, such as ['*.json', ": "hf:maker/small-ONNX",
}


@pytest.mark.parametrize("told", FAULTS)
def test_source_that_can_not_be_locked_is_told(
    served: Hub, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match=re.escape(told)):
        pins(served, FAULTS[told], monkeypatch)


STRANGE = "the answer is not that of a model hub; check the address of the mirror"
SHAPES: dict[str, tuple[Any, str]] = {
    "list": ([], STRANGE),
    "no files": ({"siblings": None}, STRANGE),
    "files by name": ({"siblings": {"a.gguf": {}}}, STRANGE),
    "names only": ({"siblings": ["a.gguf"]}, STRANGE),
    "no name": ({"siblings": [{}]}, "does not contain this file; it contains no files"),
    "no hash": ({"siblings": [{"rfilename": "a.gguf", "lfs": True}]}, "has no hash for a.gguf"),
    "other hash": (
        {"siblings": [{"rfilename": "a.gguf", "lfs": {"sha256": "short"}}]},
        "has no hash for a.gguf",
    ),
}


def strange(body: object) -> Hubs:
    """Hubs that answer everything with this."""
    hubs = Hubs()
    answer = httpx.Response(200, text=body if isinstance(body, str) else json.dumps(body))
    hubs._http = httpx.Client(transport=httpx.MockTransport(lambda _request: answer))
    return hubs


@pytest.mark.parametrize("shape", SHAPES)
def test_answer_in_another_shape_is_a_sentence(shape: str) -> None:
    body, told = SHAPES[shape]
    body = body | {"sha": COMMIT} if isinstance(body, dict) else body
    origin = HubSource("maker/small", "a.gguf")
    with strange(body) as hubs, pytest.raises(HubError, match=told):
        hubs.pins(origin, None)


@pytest.mark.parametrize("body", ["[" * 100_000, "<html>", {"layers": None}, {"layers": ["a"]}])
def test_manifest_in_another_shape_is_a_sentence(body: object) -> None:
    with strange(body) as hubs, pytest.raises(HubError, match=STRANGE):
        hubs.pins(OllamaSource("library", "m", "latest"), None)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"license": "other", "license_name": "qwen-research"}, {"licence": "qwen-research"}),
        ({"license": ["mit", "cc-by-4.0"]}, {"licence": "mit, cc-by-4.0"}),
        ({"base_model": "a/b", "base_models": ["c/d"]}, {"base_models": ["a/b", "c/d"]}),
        ({"license": 7, "base_model": {"a": 1}}, {}),
        (["mit"], {}),
        (None, {}),
    ],
)
def test_license_and_bases_of_a_card(
    served: Hub, card: Any, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a card on the controller: tests/unit/test_policy.py."""
    served.cards["maker/small-GGUF"] = card
    found = pins(served, GGUF, monkeypatch)
    assert {key: found[key] for key in ("licence", "base_models") if key in found} == expected


def test_texts_whose_names_no_model_can_have_are_left_out(
    served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be in the lock file, and each command would refuse the inventory."""
    served.files["maker/whole/Model License (v2).txt"] = b"text"
    names = [each["path"] for each in pins(served, "hf:maker/whole", monkeypatch)["files"]]
    assert names == ["config.json", "model.safetensors"]
    served.files["maker/whole/model (1).safetensors"] = WEIGHTS
    with pytest.raises(HubError, match=r"has a file 'model \(1\).safetensors', and names of a"):
        pins(served, "hf:maker/whole", monkeypatch)


QUANTIZED = ["*.json", "onnx/model_quantized.onnx"]


def test_selected_files_are_locked_and_no_others(tmp_path: Path, served: Hub) -> None:
    source = "hf:maker/small-ONNX"
    small: dict[str, Any] = {"name": "small", "service": "vllm", "source": source}
    small |= {"include": QUANTIZED}
    full: dict[str, Any] = {"name": "full", "service": "vllm", "source": source}
    full |= {"include": ["config.json", "onnx/model.onnx*"]}
    data = inventory(tmp_path, small, full)
    locked = run(tmp_path, served, "lock", "site.py")
    assert locked.returncode == 0, locked.stderr
    first, second = read_settings(data | {"services": ["vllm"], "models": [small]}).models + (
        read_settings(data | {"services": ["vllm"], "models": [full]}).models
    )
    names = ["config.json", "onnx/model_quantized.onnx", "tokenizer.json"]
    assert [file.path for file in first.files] == names
    whole = ["config.json", "onnx/model.onnx", "onnx/model.onnx_data"]
    assert [file.path for file in second.files] == whole
    served.asked.clear()
    assert run(tmp_path, served, "lock", "site.py").returncode == 0 and not served.asked
    inventory(tmp_path, small | {"include": ["*.json"]})
    assert run(tmp_path, served, "lock", "site.py").returncode == 0 and served.asked


def test_selection_is_added_by_command(tmp_path: Path, served: Hub) -> None:
    options = [word for pattern in QUANTIZED for word in ("--include", pattern)]
    added = run(tmp_path, served, "add", "small", "hf:maker/small-ONNX", *options)
    assert json.loads(added.stdout.rstrip(",\n"))["include"] == QUANTIZED
    inventory(tmp_path, json.loads(added.stdout.rstrip(",\n")))
    assert "3 files" in run(tmp_path, served, "list", "site.py").stdout


@pytest.mark.parametrize(
    ("include", "told"),
    [
        (["onnx/model_q4.onnx"], "contains no file onnx/model_q4.onnx; it contains config.json"),
        (
            ["onnx/model.onnx"],
            "keeps weights of onnx/model.onnx in onnx/model.onnx_data: add this file",
        ),
    ],
)
def test_selection_that_is_incomplete_is_refused(
    served: Hub, include: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    origin = parse_source("hf:maker/small-ONNX")
    assert not isinstance(origin, str)
    with Hubs() as hubs, pytest.raises(HubError, match=re.escape(told)):
        hubs.pins(origin, None, include)


def test_gated_model_needs_a_token(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    served.gated = {"maker/small-GGUF"}
    with pytest.raises(HubError, match="set HF_TOKEN to a token"):
        pins(served, GGUF, monkeypatch)
    assert pins(served, GGUF, monkeypatch, token="good")["sha256"] == SHA256


def test_token_that_no_header_can_have_is_not_printed(
    served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.gated = {"maker/small-GGUF"}
    assert pins(served, GGUF, monkeypatch, token="good\n")["sha256"] == SHA256
    with pytest.raises(HubError, match="HF_TOKEN, whose value has spaces") as refused:
        pins(served, GGUF, monkeypatch, token="good\nsecret")
    assert "secret" not in str(refused.value)


def test_hub_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match="cannot be looked up"):
        pins(Hub(url="http://127.0.0.1:9"), GGUF, monkeypatch)


def test_path_is_in_no_hub(tmp_path: Path, served: Hub) -> None:
    added = run(tmp_path, served, "add", "brain", "/weights/a.gguf")
    assert added.returncode == 1 and "is not in a hub: set its sha256" in added.stderr
    assert not (tmp_path / "models.lock.json").exists()
