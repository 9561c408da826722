"""vLLM, without the gateway."""

import json

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services import adapters
from llmhost.checks.services.api import Api, api_of
from llmhost.options.model import Model
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def api(host: Host, settings: Settings) -> Api:
    return api_of("vllm", host, settings)


@pytest.fixture
def model(api: Api, settings: Settings) -> Model:
    (model,) = settings.models_of("vllm")
    return model


def test_model_is_offered_under_its_declared_name(api: Api, model: Model) -> None:
    cards = {each["id"]: each for each in api.ask("/v1/models")["data"]}
    assert {*cards} == {model.name, *(adapter.name for adapter in model.adapters)}
    assert cards[model.name]["max_model_len"] == model.context_tokens


def test_chat_streams_token_by_token(api: Api, model: Model) -> None:
    if model.task != "generate":
        does_not_apply("the model of vllm does not generate text")
    messages = [{"role": "user", "content": "Say anything."}]
    body = {"model": model.name, "messages": messages, "stream": True, "max_tokens": 8}
    *events, end = api.stream("/v1/chat/completions", body)
    assert end == "[DONE]" and len(events) > 1
    assert all("choices" in json.loads(event) for event in events)


def test_adapters_change_the_answers(api: Api, model: Model) -> None:
    if not model.adapters:
        does_not_apply("the model of vllm has no adapters")
    for adapter in model.adapters:
        changes = adapters.vllm_changes_answers(api, model.task, model.name, adapter.name)
        assert changes, adapters.without_effect(adapter.name, f"its base '{model.name}'")


def test_other_model_is_unknown(api: Api, model: Model) -> None:
    body = {"model": "no-such-model", "prompt": "Hello", "max_tokens": 1}
    assert api.status("/v1/completions", body) == 404


def test_no_model_hub_is_reachable(host: Host, api: Api, settings: Settings) -> None:
    container = f"{settings.stack.project}-vllm-1"
    environment = host.check_output(
        f"docker inspect --format '{{{{json .Config.Env}}}}' {container}"
    )
    assert {"HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1"} <= set(json.loads(environment))
