"""llama.cpp loads what llmhost bakes besides a single file: a model in parts, a draft model, and a
projector."""

import base64
import hashlib
from pathlib import Path

import pytest

from llmhost.inventory.reader import read_settings
from testbed import tiny_model, tiny_projector
from testbed.engine import engine_archive
from tests.engines.container import EngineImage, container
from tests.engines.contract import ROOT, Engine, llamacpp_client
from tests.shapes import Json

ASKED = {"model": "tiny", "prompt": "One, two,", "temperature": 0, "max_tokens": 16}


def whole(home: Path) -> Json:
    return {"source": str(home / "tiny.gguf"), "sha256": tiny_model.write(home / "tiny.gguf")}


def in_parts(home: Path) -> Json:
    parts = tiny_model.write_in_parts(home / "tiny.gguf")
    assert len(parts) == 3
    digests = {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
    files = [{"path": name, "sha256": sha256} for name, sha256 in digests.items()]
    return {"source": str(home), "files": files}


def answered(model: Json, home: Path, path: str = "/v1/completions", body: Json = ASKED) -> Json:
    """The answer of the real engine with this model."""
    site = {
        "services": ["llamacpp"],
        "models": [{"name": "tiny", "service": "llamacpp", "context_tokens": 256, **model}],
        "api_clients": [{"name": "test", "sha256": "ab" * 32}],
    }
    image = EngineImage(engine_archive())
    with container(read_settings(site), "llamacpp", image, home) as found:
        engine = Engine("llama.cpp", "", "real", found.url)
        with llamacpp_client(engine) as api:
            said = api.post(path, json=body)
    assert said.status_code == 200, said.text
    answer: Json = said.json()
    return answer


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the model says as one file, alone."""
    home = tmp_path_factory.mktemp("whole")
    text: str = answered(whole(home), home / "run")["choices"][0]["text"]
    assert text
    return text


def test_model_in_parts_answers_as_the_whole_one(expected: str, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    answer = answered(in_parts(tmp_path / "parts"), tmp_path / "run")
    assert answer["choices"][0]["text"] == expected


def test_draft_model_is_used_and_changes_no_answer(expected: str, tmp_path: Path) -> None:
    model = whole(tmp_path)
    answer = answered(model | {"draft": model["source"]}, tmp_path / "run")
    assert answer["choices"][0]["text"] == expected
    assert answer["timings"]["draft_n"] >= answer["timings"]["draft_n_accepted"] > 0


def test_projector_lets_the_model_read_pictures(tmp_path: Path) -> None:
    tiny_projector.write(tmp_path / "projector.gguf")
    model, projector = whole(tmp_path), {"projector": str(tmp_path / "projector.gguf")}
    picture = base64.b64encode((ROOT / "tests/unit/data/sentence.png").read_bytes()).decode()
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
    ]
    asked = {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 8}
    path = "/v1/chat/completions"
    answer = answered(model | projector, tmp_path / "run", path, asked)
    assert answer["choices"][0]["message"]["content"]
    with pytest.raises(AssertionError, match="image input is not supported"):
        answered(model, tmp_path / "blind", path, asked)
