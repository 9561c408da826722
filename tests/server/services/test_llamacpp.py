"""llama.cpp's server, asked without the gateway."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services import adapters
from llmhost.checks.services.api import Api, api_of
from llmhost.options.model import Model
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def model(settings: Settings) -> Model:
    if "llamacpp" not in settings.services:
        does_not_apply("the service llamacpp is not declared")
    (model,) = settings.models_of("llamacpp")
    return model


def computes_on_gpu(host: Host, container: dict[str, Any]) -> tuple[bool, str]:
    """The engine's log line about loading its model, and whether all layers are on the GPU
    (src/llama-model.cpp, load_tensors; a build without a GPU backend logs nothing about them)."""
    # Of this start only; Docker records the time after the process has started.
    since = datetime.fromisoformat(container["State"]["StartedAt"]) - timedelta(seconds=1)
    log = host.check_output(f"docker logs --since {since.isoformat()} {container['Id']} 2>&1")
    loads = [line for line in log.splitlines() if "load_tensors:" in line]
    if not loads:
        pytest.skip("not checked: the log of llamacpp no longer reaches back to its start")
    for line in reversed(loads):
        if found := re.search(r"offloaded (\d+)/(\d+) layers to GPU", line):
            return found[1] == found[2], found[0]
    return False, "its build has no GPU support"


@pytest.fixture(scope="module")
def api(host: Host, settings: Settings) -> Api:
    return api_of("llamacpp", host, settings)


def test_model_is_offered_under_its_declared_name(api: Api, model: Model) -> None:
    assert [each["id"] for each in api.ask("/v1/models")["data"]] == [model.name]


def test_every_request_has_the_declared_context(api: Api, model: Model) -> None:
    properties = api.ask("/props")
    assert properties["total_slots"] == model.parallel
    assert properties["default_generation_settings"]["n_ctx"] == model.context_tokens


def test_chat_streams_token_by_token(api: Api, model: Model) -> None:
    messages = [{"role": "user", "content": "Say anything."}]
    body = {"model": model.name, "messages": messages, "stream": True, "max_tokens": 8}
    body["ignore_eos"] = True  # an answer of one token would not be a stream
    *events, end = api.stream("/v1/chat/completions", body)
    assert end == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    assert sum(1 for delta in deltas if delta.get("content")) > 1 or len(deltas) > 2


def test_adapter_changes_the_answers(api: Api, model: Model) -> None:
    if not model.adapter:
        does_not_apply("the model of llamacpp has no adapter")
    if model.task != "generate":
        pytest.skip("not checked: llama.cpp embeds and ranks always with its adapter")
    base, adapted = (adapters.llama(api, adapted=each) for each in (False, True))
    changes = adapters.changes_answers(base, adapted)
    assert changes, adapters.without_effect(model.name, "its base")


def test_slots_and_web_interface_are_closed(api: Api, model: Model) -> None:
    assert api.status("/slots") in (404, 501)
    assert api.status("/") == 404
