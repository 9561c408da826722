"""What `llmhost verify` finds about adapters that change nothing.

tests/unit/test_vllm_adapters.py and tests/engines/test_llamacpp_files.py ask the engines.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import testinfra

from llmhost.checks.corrections import correction
from llmhost.checks.next_steps import NEXT_STEPS
from llmhost.checks.services import adapters
from llmhost.checks.services import test_ollama as ollama_checks
from llmhost.checks.services.adapters import Answer, changes_answers
from llmhost.checks.services.api import Api
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from tests.unit.model_files import lora_pair, write_lora
from tests.unit.ollama_store import bake, model, served

QUERY = "blk.0.attn_q.weight"
CHECKS = (
    "vllm.adapters-change-the-answers",
    "llamacpp.adapter-changes-the-answers",
    "ollama.adapters-change-the-answers",
)


def saying(*answers: tuple[str, float]) -> adapters.Ask:
    """Tokens and a number for each request in turn; the last one again and again."""
    found = iter(answers)
    last = answers[-1]

    def ask(_: str) -> Answer:
        text, number = next(found, last)
        return Answer(tuple(text.split()), (number,))

    return ask


@pytest.mark.parametrize(
    ("base", "adapted", "changes"),
    [
        ([("a b", -0.5)], [("a b", -0.5)], False),
        ([("a b", -0.5)], [("a c", -0.5)], True),
        ([("a b", -0.5)], [("a b", -0.501)], True),  # the same text
        ([("a b", -0.5)], [("a b", -0.500001)], False),  # rounded otherwise
        ([("a b", -0.5), ("a b", -0.52)], [("a b", -0.51)], False),  # within its own noise
        ([("a b", -0.5), ("a b", -0.52)], [("a b", -0.6)], True),
        ([("a b", -0.5), ("a c", -0.5), ("a b", -0.5)], [("a b", -0.5)], False),
        ([("a b", -0.5)], [("a b", -0.5), ("z", -0.5)], True),  # the second prompt alone
    ],
)
def test_adapter_changes_more_than_chance(
    base: list[tuple[str, float]], adapted: list[tuple[str, float]], changes: bool
) -> None:
    assert changes_answers(saying(*base), saying(*adapted)) is changes


def test_base_without_a_steady_answer_is_not_judged() -> None:
    base = saying(*((str(number), -0.5) for number in range(10)))
    with pytest.raises(pytest.skip.Exception, match="in different ways"):
        changes_answers(base, saying(("a", -0.5)))


def test_sentence_names_adapter_and_base() -> None:
    assert adapters.without_effect("legal", "its base 'writer'") == (
        "'legal' answers exactly like its base 'writer': its adapter has no effect"
    )


def test_no_deploy_corrects_an_adapter() -> None:
    assert all(correction(check).startswith("no deploy") for check in CHECKS)
    assert all("train" in NEXT_STEPS[check] for check in CHECKS)


@pytest.fixture
def declared(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """A site with a role of Ollama, whose adapter is multiplied by a number."""
    given = model(tmp_path, "brain")
    adapter = write_lora(tmp_path / "lora.gguf", lora_pair(QUERY, scale=request.param))
    one = {"name": "brain", "service": "ollama", "source": given.source, "sha256": given.sha256}
    data = {
        "services": ["ollama"],
        "models": [{**one, "context_tokens": 512, "adapter": str(adapter)}],
        "api_clients": [{"name": "test", "sha256": "ab" * 32}],
    }
    return read_settings(data)


@pytest.fixture
def api(declared: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """Ollama's double on this machine; `docker top` lists the processes of all containers."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "docker").write_text('#!/bin/sh\nshift 2\nexec ps "$@"\n')
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with served(bake(declared.models_of("ollama"), tmp_path)) as client:
        yield Api(testinfra.get_host("local://"), str(client.base_url).rstrip("/"))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@needs_root
@pytest.mark.parametrize("declared", [1.0], indirect=True)
def test_adapter_of_ollama_changes_answers(declared: Settings, api: Api) -> None:
    ollama_checks.test_adapters_change_the_answers(api.host, api, declared)


@needs_root
@pytest.mark.parametrize("declared", [0.0], indirect=True)
def test_adapter_of_ollama_without_effect_is_noticed(declared: Settings, api: Api) -> None:
    with pytest.raises(AssertionError, match="'brain' answers exactly like its base"):
        ollama_checks.test_adapters_change_the_answers(api.host, api, declared)
