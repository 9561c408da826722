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
def models(settings: Settings) -> tuple[Model, ...]:
    if "llamacpp" not in settings.services:
        does_not_apply("the service llamacpp is not declared")
    return settings.models_of("llamacpp")


def computes_on_gpu(host: Host, container: dict[str, Any]) -> tuple[bool, str]:
    """The engine's log lines about loading its models, and whether all layers are on the GPU
    (src/llama-model.cpp, load_tensors; a build without a GPU backend logs nothing about them)."""
    # Of this start only; Docker records the time after the process has started.
    since = datetime.fromisoformat(container["State"]["StartedAt"]) - timedelta(seconds=1)
    log = host.check_output(f"docker logs --since {since.isoformat()} {container['Id']} 2>&1")
    loads = [line for line in log.splitlines() if "load_tensors:" in line]
    if len({_process(line) for line in loads}) < _models_in(container):
        pytest.skip("not checked: the log of llamacpp no longer reaches back to its start")
    last = dict.fromkeys(map(_process, loads), "its build has no GPU support")
    for line in loads:
        if found := re.search(r"offloaded (\d+)/(\d+) layers to GPU", line):
            last[_process(line)] = found[0]
    partial = [said for said in last.values() if not re.match(r"offloaded (\d+)/\1 layers", said)]
    return not partial, ", ".join(partial or last.values())


def _process(line: str) -> str:
    """What a router puts before a line of one of its processes: `[PORT]`; else nothing."""
    found = re.match(r"\s*\[\s*\d+\]", line)
    return found[0] if found else ""


def _models_in(container: dict[str, Any]) -> int:
    """How many models it loads: a router has their number on its command line."""
    command = container["Config"]["Cmd"]
    return int(command[command.index("--models-max") + 1]) if "--models-max" in command else 1


@pytest.fixture(scope="module")
def api(host: Host, settings: Settings) -> Api:
    return api_of("llamacpp", host, settings)


def test_model_is_offered_under_its_declared_name(api: Api, models: tuple[Model, ...]) -> None:
    offered = {each["id"] for each in api.ask("/v1/models")["data"]}
    assert offered == {model.name for model in models}


def test_every_request_has_the_declared_context(api: Api, models: tuple[Model, ...]) -> None:
    for model in models:
        properties = api.ask(f"/props?model={model.name}")
        assert properties["total_slots"] == model.parallel, model.name
        context = properties["default_generation_settings"]["n_ctx"]
        assert context == model.context_tokens, model.name


def test_chat_streams_token_by_token(api: Api, models: tuple[Model, ...]) -> None:
    generating = [model for model in models if model.task == "generate"]
    if not generating:
        does_not_apply("no model of llamacpp generates text")
    messages = [{"role": "user", "content": "Say anything."}]
    for model in generating:
        body = {"model": model.name, "messages": messages, "stream": True, "max_tokens": 8}
        body["ignore_eos"] = True  # an answer of one token would not be a stream
        *events, end = api.stream("/v1/chat/completions", body)
        assert end == "[DONE]", model.name
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
        pieces = sum(1 for delta in deltas if delta.get("content"))
        assert pieces > 1 or len(deltas) > 2, model.name


def test_adapter_changes_the_answers(api: Api, models: tuple[Model, ...]) -> None:
    adapted = [model for model in models if model.adapter]
    if not adapted:
        does_not_apply("no model of llamacpp has an adapter")
    judged = [model for model in adapted if model.task == "generate"]
    for model in judged:
        both = (adapters.llama(api, model.name, adapted=each) for each in (False, True))
        changes = adapters.changes_answers(*both)
        assert changes, adapters.without_effect(model.name, "its base")
    if judged != adapted:
        pytest.skip("not checked: llama.cpp embeds and ranks always with its adapter")


def test_slots_and_web_interface_are_closed(api: Api, models: tuple[Model, ...]) -> None:
    for model in models:
        assert api.status(f"/slots?model={model.name}") in (404, 501)
    assert api.status("/") == 404
