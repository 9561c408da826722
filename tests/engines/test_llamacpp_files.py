"""llama.cpp loads what llmhost bakes besides a single file: a model in parts, a draft model, a
projector, and an adapter."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
import testinfra

from llmhost.checks.services import adapters
from llmhost.checks.services.api import Api
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from testbed import tiny_model, tiny_projector
from testbed.engine import engine_archive
from tests.engines.container import EngineImage, container
from tests.engines.contract import ROOT, Engine, llamacpp_client
from tests.shapes import Json
from tests.unit.model_files import lora_pair, write_lora

QUERY = "blk.0.attn_q.weight"
ASKED = {"model": "tiny", "prompt": "One, two,", "temperature": 0, "max_tokens": 16}


def whole(home: Path) -> Json:
    return {"source": str(home / "tiny.gguf"), "sha256": tiny_model.write(home / "tiny.gguf")}


def in_parts(home: Path) -> Json:
    parts = tiny_model.write_in_parts(home / "tiny.gguf")
    assert len(parts) == 3
    digests = {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
    files = [{"path": name, "sha256": sha256} for name, sha256 in digests.items()]
    return {"source": str(home), "files": files}


def site(model: Json) -> Settings:
    """With llama.cpp alone."""
    return read_settings(
        {
            "services": ["llamacpp"],
            "models": [{"name": "tiny", "service": "llamacpp", "context_tokens": 256, **model}],
            "api_clients": [{"name": "test", "sha256": "ab" * 32}],
        }
    )


def answered(model: Json, home: Path, path: str = "/v1/completions", body: Json = ASKED) -> Json:
    """The answer of the real engine with this model."""
    with container(site(model), "llamacpp", EngineImage(engine_archive()), home) as found:
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
    asked["ignore_eos"] = True  # by chance, the first token may end the answer
    path = "/v1/chat/completions"
    answer = answered(model | projector, tmp_path / "run", path, asked)
    assert answer["choices"][0]["message"]["content"]
    with pytest.raises(AssertionError, match="image input is not supported"):
        answered(model, tmp_path / "blind", path, asked)


def norm() -> dict[str, np.ndarray]:
    """A pair for a norm, which is no matrix."""
    return lora_pair("blk.0.attn_norm.weight", 64, 1)


def changes(weights: Mapping[str, np.ndarray], tmp_path: Path) -> bool:
    """What `llmhost verify` finds about an adapter, and whether the next answer is right."""
    model = whole(tmp_path) | {"parallel": 2}
    # The inventory's own rules would refuse some of them.
    adapter = write_lora(tmp_path / "lora.gguf", lora_pair(QUERY))
    declared = site(model | {"adapter": str(adapter)})
    write_lora(adapter, weights)
    image = EngineImage(engine_archive())
    with container(declared, "llamacpp", image, tmp_path / "run") as found:
        before = said(found.url)
        api = Api(testinfra.get_host("local://"), found.url)
        base, adapted = (adapters.llama(api, adapted=each) for each in (False, True))
        changed = adapters.changes_answers(base, adapted)
        assert adapters.distance(adapted(adapters.PROMPTS[0]), adapted(adapters.PROMPTS[0])) == 0
        for prompt in adapters.PROMPTS:  # the last answer of the check is the base's
            base(prompt)
        assert said(found.url) == before
    return changed


def said(url: str) -> list[float]:
    """Probabilities of an answer to a client."""
    body = {**ASKED, "prompt": adapters.PROMPTS[0], "logprobs": 1, "id_slot": 0}
    one = {"Connection": "close"}
    answer = httpx.post(f"{url}/v1/completions", json=body, headers=one, timeout=60)
    found = answer.json()["choices"][0]["logprobs"]["content"]
    return [round(each["logprob"], 4) for each in found]


@pytest.mark.parametrize(
    ("weights", "changed"),
    [
        (lambda: lora_pair(QUERY), True),
        (lambda: lora_pair(QUERY, scale=0.001), True),
        (lambda: lora_pair(QUERY) | norm(), True),
        (lambda: lora_pair(QUERY, scale=0), False),
        (norm, False),
        (lambda: {"blk.0.attn_norm.weight": np.ones(64)}, False),
    ],
    ids=["usual", "faint", "norm too", "untrained", "norm", "whole norm"],
)
def test_adapter_that_is_ignored_is_noticed(
    weights: Callable[[], Mapping[str, np.ndarray]], changed: bool, tmp_path: Path
) -> None:
    assert changes(weights(), tmp_path) is changed


@pytest.mark.parametrize("name", ["blk.0.attn_x.weight", f"model.{QUERY}", "blk.9.attn_q.weight"])
def test_adapter_with_other_names_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="failed to load lora adapter"):
        changes(lora_pair(name), tmp_path)


def test_adapter_with_a_draft_model_is_judged_too(tmp_path: Path) -> None:
    model = whole(tmp_path)
    adapter = write_lora(tmp_path / "lora.gguf", lora_pair(QUERY, scale=0))
    declared = site(model | {"adapter": str(adapter), "draft": model["source"]})
    image = EngineImage(engine_archive())
    with container(declared, "llamacpp", image, tmp_path / "run") as found:
        api = Api(testinfra.get_host("local://"), found.url)
        base, adapted = (adapters.llama(api, adapted=each) for each in (False, True))
        assert not adapters.changes_answers(base, adapted)
