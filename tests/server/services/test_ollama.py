"""Ollama, without the gateway."""

import json
import re

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services import adapters
from llmhost.checks.services.api import Api, api_of
from llmhost.options.model import Model
from llmhost.services.ollama_store import weights_of
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def api(host: Host, settings: Settings) -> Api:
    return api_of("ollama", host, settings)


@pytest.fixture
def writers(api: Api, settings: Settings) -> list[Model]:
    """Models that generate text."""
    found = [model for model in settings.models_of("ollama") if model.task == "generate"]
    return found or does_not_apply("no model of ollama generates text")


def test_every_role_is_a_separate_model(api: Api, settings: Settings) -> None:
    names = {each["name"].removesuffix(":latest") for each in api.ask("/api/tags")["models"]}
    declared = {model.name for model in settings.models_of("ollama")}
    # Under the names of models that fall back to them, they are models, too.
    assert declared <= names <= declared | settings.gateway.fallbacks.keys()


def test_resident_models_are_loaded_before_the_first_request(api: Api, settings: Settings) -> None:
    running = api.ask("/api/ps")["models"]
    # A model that stays has an end centuries from now. Roles with the same weights are one entry.
    staying = {
        each["name"].removesuffix(":latest") for each in running if each["expires_at"] > "2100"
    }
    for model in settings.models_of("ollama"):
        same = {m.name for m in settings.models_of("ollama") if weights_of(m) == weights_of(model)}
        assert not model.resident or same & staying, f"{model.name} is not loaded"


def test_system_prompt_and_parameters_are_in_the_model(api: Api, writers: list[Model]) -> None:
    for model in writers:
        shown = api.ask("/api/show", {"model": model.name})
        assert str(model.context_tokens) in shown["parameters"]
        assert shown.get("system", "") == (model.system_prompt or "") or not model.system_prompt


def test_weights_that_run_are_the_pinned_ones(host: Host, settings: Settings) -> None:
    """Reads all weights: Ollama does not compare them with their digests."""
    if "ollama" not in settings.services:
        does_not_apply("the service ollama is not declared")
    container = f"{settings.stack.project}-ollama-1"
    store = "/opt/ollama"
    for model in settings.models_of("ollama"):
        path = f"{store}/manifests/registry.ollama.ai/library/{model.name}/latest"
        manifest = json.loads(host.check_output(f"docker exec {container} cat {path}"))
        (layer,) = [e for e in manifest["layers"] if e["mediaType"].endswith("image.model")]
        sha256 = layer["digest"].removeprefix("sha256:")
        assert sha256 in model.baked.values(), f"{model.name} runs another file"
        blob = f"{store}/blobs/sha256-{sha256}"
        read = host.check_output(f"docker exec {container} sha256sum {blob}").split()[0]
        assert read == sha256, f"the weights of {model.name} are another file"
        # In its own layer, and not copied into the store.
        assert host.check_output(f"docker exec {container} readlink {blob}").startswith("/models/")


def test_every_role_answers_in_a_stream(api: Api, writers: list[Model]) -> None:
    for model in writers:
        messages = [{"role": "user", "content": "Say anything."}]
        options = {"num_predict": 8}
        body = {"model": model.name, "messages": messages, "options": options}
        *parts, last = map(json.loads, api.stream("/api/chat", body))
        assert last["done"] and parts and not any(part["done"] for part in parts)


def runner_of(host: Host, settings: Settings, model: Model) -> tuple[Api, bool]:
    """The llama.cpp that Ollama has started for a model, in the network of its container, and
    whether it has an adapter (llm/llama_server.go, startLlamaServer)."""
    container = f"{settings.stack.project}-ollama-1"
    lines = host.check_output(f"docker top {container} -ww -eo pid,args").splitlines()
    weights = f"sha256-{weights_of(model)} "
    for line in (each for each in lines if weights in each):
        if found := re.search(r"^\s*(\d+)\s.* --port (\d+)( |$)", line):
            through = f"nsenter --target {found[1]} --net"
            return Api(host, f"http://127.0.0.1:{found[2]}", through), " --lora " in line
    if not model.resident:
        pytest.skip(f"not checked: Ollama has unloaded {model.name}")
    raise AssertionError(f"{model.name} is not loaded")


def test_adapters_change_the_answers(host: Host, api: Api, settings: Settings) -> None:
    """Ollama has no name for the base, and passes requests on to llama.cpp's server, which can
    answer without its adapter."""
    declared = [model for model in settings.models_of("ollama") if model.adapter]
    for model in declared or does_not_apply("no model of ollama has an adapter"):
        if model.task != "generate":
            pytest.skip("not checked: llama.cpp embeds always with its adapter")
        api.ask("/api/generate", {"model": model.name, "stream": False})  # loads it
        runner, has_adapter = runner_of(host, settings, model)
        assert has_adapter, f"Ollama runs {model.name} without its adapter"
        base, adapted = (adapters.llama(runner, adapted=each) for each in (False, True))
        changes = adapters.changes_answers(base, adapted)
        assert changes, adapters.without_effect(model.name, "its base")


def test_json_is_answered_with_json(api: Api, writers: list[Model]) -> None:
    # One short field: without a schema, small models write until they are cut off.
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    asked = {"model": writers[0].name, "prompt": "Is it on?", "format": schema}
    body = {**asked, "stream": False, "options": {"num_predict": 200}}
    assert isinstance(json.loads(api.ask("/api/generate", body)["response"])["ok"], bool)


def test_baked_models_cannot_be_changed(api: Api, settings: Settings) -> None:
    first = settings.models_of("ollama")[0].name
    assert api.status("/api/create", {"model": "other", "from": first}) >= 400
