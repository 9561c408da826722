"""Ollama, without the gateway."""

import json

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services.api import Api, api_of
from llmhost.options.model import Model
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def api(host: Host, settings: Settings) -> Api:
    return api_of("ollama", host, settings)


@pytest.fixture
def writers(api: Api, settings: Settings) -> list[Model]:
    """Models that generate text."""
    found = [model for model in settings.models_of("ollama") if model.task == "generate"]
    return found or does_not_apply("no model of ollama generates text")


def test_every_role_is_a_model_of_its_own(api: Api, settings: Settings) -> None:
    names = {each["name"].removesuffix(":latest") for each in api.ask("/api/tags")["models"]}
    assert names >= {model.name for model in settings.models_of("ollama")}


def test_resident_models_are_loaded_before_anybody_asks(api: Api, settings: Settings) -> None:
    loaded = {each["name"].removesuffix(":latest") for each in api.ask("/api/ps")["models"]}
    assert loaded >= {model.name for model in settings.models_of("ollama") if model.resident}


def test_system_prompt_and_parameters_are_in_the_model(api: Api, writers: list[Model]) -> None:
    for model in writers:
        shown = api.ask("/api/show", {"model": model.name})
        assert str(model.context_tokens) in shown["parameters"]
        assert shown.get("system", "") == (model.system_prompt or "") or not model.system_prompt


def test_weights_were_not_copied_into_the_store(host: Host, api: Api, settings: Settings) -> None:
    container = f"{settings.stack.project}-ollama-1"
    for model in settings.models_of("ollama"):
        for sha256 in model.baked.values():
            link = f"/opt/ollama/blobs/sha256-{sha256}"
            place = host.check_output(f"docker exec {container} readlink {link}")
            # Two roles may have the same weights.
            assert any(other.baked.get(place) == sha256 for other in settings.models)


def test_every_role_answers_in_a_stream(api: Api, writers: list[Model]) -> None:
    for model in writers:
        messages = [{"role": "user", "content": "Say anything."}]
        options = {"num_predict": 8}
        body = {"model": model.name, "messages": messages, "options": options}
        *parts, last = map(json.loads, api.stream("/api/chat", body))
        assert last["done"] and parts and not any(part["done"] for part in parts)


def test_json_is_answered_with_json(api: Api, writers: list[Model]) -> None:
    asked = {"model": writers[0].name, "prompt": "A JSON object:", "format": "json"}
    body = {**asked, "stream": False, "options": {"num_predict": 200}}
    assert isinstance(json.loads(api.ask("/api/generate", body)["response"]), dict)


def test_nobody_can_change_what_is_baked(api: Api, settings: Settings) -> None:
    first = settings.models_of("ollama")[0].name
    assert api.status("/api/create", {"model": "other", "from": first}) >= 400
