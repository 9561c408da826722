"""Adapters of vLLM: what the double, or a real engine, does with them, and what llmhost says.

`script/test engines` starts the real engine and sets LLMHOST_CONTRACT_VLLM to its URL without
adapters, _ADAPTER to that with one, _ADAPTERS to that with two, and _ADAPTERS_POOLING to one that
embeds, with two. These two have VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 as well, so that they do not
restart for each adapter: they load those of the command line by the same function
(vllm/entrypoints/openai/models/serving.py, init_static_loras).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import testinfra

from llmhost.checks.services import adapters
from llmhost.checks.services.api import Api
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from tests.unit.peft_adapters import (
    SHAPE,
    Weights,
    safetensors,
    tensors,
    two_adapters,
    write_adapter,
)
from tests.unit.vllm_site import NAME, double, hub_directory, site_of, started_as

Json = dict[str, Any]
URLS = {
    "plain": "LLMHOST_CONTRACT_VLLM",
    "one": "LLMHOST_CONTRACT_VLLM_ADAPTER",
    "two": "LLMHOST_CONTRACT_VLLM_ADAPTERS",
    "pooling": "LLMHOST_CONTRACT_VLLM_ADAPTERS_POOLING",
}
RUNTIME_LOADING = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
LAYER = "base_model.model.model.layers"
TABLE = "base_model.model.model.embed_tokens"


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URL of the engine without adapters, with one, with two, and of one that embeds, with two."""
    if real := {kind: os.environ[name] for kind, name in URLS.items() if name in os.environ}:
        yield real
        return
    with ExitStack() as running:
        found = {}
        both = two_adapters(tmp_path_factory.mktemp("adapters"))
        for kind, given in (("plain", []), ("one", both[:1]), ("two", both), ("pooling", both)):
            place = tmp_path_factory.mktemp(kind)
            runner = "pooling" if kind == "pooling" else "generate"
            of_kind = double(place, runner, RUNTIME_LOADING, adapters=given)
            found[kind] = running.enter_context(of_kind)
        yield found


def said(url: str, name: str) -> str:
    """Eight tokens of a completion, special ones too, so that there is a text."""
    body = {"model": name, "prompt": "One, two,", "max_tokens": 8, "temperature": 0}
    body |= {"ignore_eos": True, "skip_special_tokens": False}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=300)
    assert answer.json()["model"] == name
    text: str = answer.json()["choices"][0]["text"]
    return text


@pytest.mark.parametrize(("kind", "names"), [("one", ["style"]), ("two", ["style", "legal"])])
def test_adapters_are_listed_after_their_model(
    engines: dict[str, str], kind: str, names: list[str]
) -> None:
    listed = httpx.get(f"{engines[kind]}/v1/models").json()["data"]
    parents = [NAME] * len(names)
    assert [(each["id"], each["parent"]) for each in listed] == [
        (NAME, None),
        *zip(names, parents, strict=True),
    ]
    assert [each["max_model_len"] for each in listed] == [512, *[None] * len(names)]
    assert all(each["root"].endswith(f"/{each['id']}") for each in listed[1:])


def test_each_adapter_has_answers_of_its_own(engines: dict[str, str]) -> None:
    answers = {name: said(engines["two"], name) for name in (NAME, "style", "legal")}
    assert len({*answers.values()}) == 3
    assert said(engines["one"], "style") == answers["style"]


def test_base_answers_as_without_adapters(engines: dict[str, str]) -> None:
    expected = said(engines["plain"], NAME)
    for kind in ("one", "two"):
        found = [said(engines[kind], name) for name in (NAME, "style", NAME)]
        assert found[0] == found[2] == expected


@pytest.mark.parametrize("kind", ["one", "two"])
def test_unknown_adapter_is_not_found(engines: dict[str, str], kind: str) -> None:
    client = openai.OpenAI(base_url=f"{engines[kind]}/v1", api_key="none")
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "Hi"}])
    assert refused.value.body == {
        "message": f"The model `nope` does not exist. Valid aliases: {NAME}.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


@dataclass(frozen=True)
class Case:
    """An adapter: what replaces keys of its configuration, its tensors, or the file of them; what
    vLLM and llmhost refuse it with, each empty if accepted."""

    name: str
    engine: str = ""
    llmhost: str = ""
    config: Json = field(default_factory=dict)
    weights: Callable[[], Weights] = lambda: tensors(8)
    raw: bytes | None = None
    rank: int = 8
    without: tuple[str, ...] = ()

    def write(self, home: Path) -> Json:
        adapter = write_adapter(home, self.rank, self.weights(), self.without, **self.config)
        if self.raw is not None:
            (home / "adapter_model.safetensors").write_bytes(self.raw)
        return adapter


def unsupported(name: str, engine: str, **config: Any) -> Case:
    """A feature that neither supports; one key of the configuration has it."""
    *_, key = config
    return Case(name, engine, f"has {key}: ", config)


def beside(*names: str, sizes: tuple[int, ...] = (1, 64)) -> Callable[[], Weights]:
    """The usual tensors, and these ones."""
    return lambda: {**tensors(8), **{name: np.ones(sizes) for name in names}}


def adapted(module: str, sides: str = "AB") -> Callable[[], Weights]:
    """The usual tensors, and those of one module of 64 inputs and outputs."""
    sizes = {"A": (8, 64), "B": (64, 8)}
    own = {f"{module}.lora_{side}.weight": np.ones(sizes[side]) for side in sides}
    return lambda: {**tensors(8), **own}


def half_as_large() -> Weights:
    """Of a model whose hidden size is half of it."""
    return {
        name: values[:, : values.shape[1] // 2] if "lora_A" in name else values
        for name, values in tensors(8).items()
    }


SERVED = (
    Case("as_peft_writes_it"),
    Case("rslora", config={"use_rslora": True}),
    Case("gaussian", config={"init_lora_weights": "gaussian"}),
    Case("modules_by_expression", config={"target_modules": ".*proj"}),
    Case("modules_null", config={"target_modules": None}),
    Case("patterns_null", config={"rank_pattern": None, "alpha_pattern": None}),
    Case("rank_above_8", rank=20, weights=lambda: tensors(20)),
    Case(
        "head",
        weights=lambda: {
            "base_model.model.lm_head.lora_A.weight": np.ones((8, 64)),
            "base_model.model.lm_head.lora_B.weight": np.ones((259, 8)),
        },
    ),
    Case(
        "embeddings",
        weights=lambda: {
            f"{TABLE}.lora_embedding_A": np.ones((8, 259)),
            f"{TABLE}.lora_embedding_B": np.ones((64, 8)),
        },
    ),
)

REFUSED = (
    unsupported("dora", "vLLM does not yet support DoRA.", use_dora=True),
    unsupported("bias_of_all", "Adapter bias is not supported.", bias="all"),
    unsupported("bias_of_lora", "Adapter bias is not supported.", bias="lora_only"),
    unsupported("lora_bias", "vLLM does not support LoRA bias", lora_bias=True),
    unsupported("saved", "Unsupported modules_to_save: ['lm_head']", modules_to_save=["lm_head"]),
    unsupported("pissa", "init_lora_weights='pissa'", init_lora_weights="pissa"),
    unsupported("loftq", "init_lora_weights='loftq'", init_lora_weights="loftq"),
    unsupported("alora", "Activated LoRA", alora_invocation_tokens=[1, 2]),
    unsupported("replication", "layer_replication", layer_replication=[[0, 2], [1, 3]]),
    unsupported("bdlora", "BD-LoRA", use_bdlora={"nblocks": 2}),
    unsupported("qalora", "QALoRA", use_qalora=True),
    Case("without_alpha", "Missing required", "has no lora_alpha", without=("lora_alpha",)),
    Case("without_modules", "Missing required", "has no target_mod", without=("target_modules",)),
    Case(
        "trained_tokens",
        "is unsupported LoRA weight",
        "has a tensor that vLLM does not load",
        weights=beside(f"{TABLE}.token_adapter.trainable_tokens_delta"),
    ),
    Case(
        "magnitudes",
        "is unsupported LoRA weight",
        "has a tensor that vLLM does not load",
        weights=beside(f"{LAYER}.0.self_attn.q_proj.lora_magnitude_vector", sizes=(320,)),
    ),
    Case(
        "no_safetensors",
        "deserializing header",
        "has an adapter_model.safetensors that",
        raw=b"weights",
    ),
    Case("no_tensors", "Worker failed", "changes nothing", raw=safetensors({})),
    Case(
        "half_a_module",
        "Worker failed",
        "lacks one of the two matrices",
        weights=adapted(f"{LAYER}.0.mlp.up_proj", "A"),
    ),
)

ENGINE_ALONE = (
    # llmhost does not know which modules a model has.
    Case("norm", "expected target modules", weights=adapted(f"{LAYER}.0.input_layernorm")),
    Case("another_module", "expected target modules", weights=adapted(f"{LAYER}.0.attn.c_attn")),
)

LLMHOST_ALONE = (
    Case("deeper", "", "changes layer 9, and", weights=adapted(f"{LAYER}.9.mlp.up_proj")),
    Case("smaller", "", "is for a hidden size of 32", weights=half_as_large),
    Case("another_method", "", "is not a LoRA adapter", {"peft_type": "IA3"}),
    Case("another_rank", "", "has a matrix of rank 16", weights=lambda: tensors(16)),
)
"""vLLM loads these, and its answers are wrong."""


def renamed(start: str) -> Weights:
    """The usual tensors, whose names begin otherwise."""
    usual = "base_model.model.model.layers."
    return {name.replace(usual, start): values for name, values in tensors(8).items()}


def zeros() -> Weights:
    """As PEFT begins a training: the second matrix of each pair is zero."""
    return {
        name: values if "lora_A" in name else np.zeros_like(values)
        for name, values in tensors(8).items()
    }


CHANGING = (
    Case("as_usual"),
    Case("without_start", weights=lambda: renamed("model.layers.")),
    Case("twice", weights=lambda: renamed("base_model.model.base_model.model.model.layers.")),
    Case("faint", weights=lambda: {name: each * 0.05 for name, each in tensors(8).items()}),
)
IGNORED = (
    Case("another_prefix", weights=lambda: renamed("base_model.model.language_model.layers.")),
    Case("untrained", weights=zeros),
)
"""vLLM serves these, and they answer like the base."""
WITHOUT_MODEL = Case("without_model", weights=lambda: renamed("base_model.model.layers."))
"""Found by models that embed alone."""


def loaded(url: str, case: Case, home: Path) -> httpx.Response:
    body = {"lora_name": case.name, "lora_path": case.write(home)["source"]}
    return httpx.post(f"{url}/v1/load_lora_adapter", json=body, timeout=300)


@pytest.fixture
def served(engines: dict[str, str], tmp_path: Path) -> Iterator[Callable[[Case], str]]:
    """What an adapter answers, which the engine serves until the end of the test."""
    url, names = engines["two"], []

    def answer(case: Case) -> str:
        ready = loaded(url, case, tmp_path / case.name)
        assert ready.status_code == 200, ready.text
        names.append(case.name)
        return said(url, case.name)

    yield answer
    for name in names:
        body = {"lora_name": name}
        httpx.post(f"{url}/v1/unload_lora_adapter", json=body).raise_for_status()


@pytest.mark.parametrize("case", SERVED, ids=lambda case: case.name)
def test_adapter_that_llmhost_accepts_is_served(
    engines: dict[str, str], served: Callable[[Case], str], tmp_path: Path, case: Case
) -> None:
    assert mistakes(case, tmp_path / "site") == []
    assert served(case) != said(engines["two"], NAME)


@pytest.mark.parametrize("case", [*REFUSED, *ENGINE_ALONE], ids=lambda case: case.name)
def test_engine_refuses(engines: dict[str, str], tmp_path: Path, case: Case) -> None:
    answer = loaded(engines["two"], case, tmp_path / "adapter")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "InternalServerError"
    assert case.engine in answer.json()["error"]["message"]


@pytest.mark.parametrize("case", LLMHOST_ALONE, ids=lambda case: case.name)
def test_engine_serves_what_llmhost_refuses(served: Callable[[Case], str], case: Case) -> None:
    assert served(case)


@pytest.mark.parametrize("case", [*REFUSED, *LLMHOST_ALONE], ids=lambda case: case.name)
def test_llmhost_refuses(tmp_path: Path, case: Case) -> None:
    (problem,) = mistakes(case, tmp_path)
    assert problem.startswith(f"'{NAME}': its adapter 'adapter' {case.llmhost}")


def mistakes(case: Case, place: Path) -> list[str]:
    """What llmhost says about a site with this adapter."""
    model = hub_directory(place / "model") | {"shape": SHAPE}
    data = site_of({**model, "adapters": [case.write(place / "adapter")]})
    try:
        read_settings(data)
    except SettingsError as error:
        return [problem.what for problem in error.problems]
    return []


def changes(url: str, task: str, case: Case, home: Path) -> bool:
    """What `llmhost verify` finds about an adapter, which is served meanwhile."""
    ready = loaded(url, case, home)
    assert ready.status_code == 200, ready.text
    api = Api(testinfra.get_host("local://"), url)
    try:
        return adapters.vllm_changes_answers(api, task, NAME, case.name)
    finally:
        body = {"lora_name": case.name}
        httpx.post(f"{url}/v1/unload_lora_adapter", json=body).raise_for_status()


@pytest.mark.parametrize("kind", ["two", "pooling"])
@pytest.mark.parametrize("case", [*CHANGING, *IGNORED, WITHOUT_MODEL], ids=lambda case: case.name)
def test_adapter_that_is_ignored_is_noticed(
    engines: dict[str, str], tmp_path: Path, case: Case, kind: str
) -> None:
    task = "embed" if kind == "pooling" else "generate"
    expected = case in CHANGING or (case is WITHOUT_MODEL and task == "embed")
    assert changes(engines[kind], task, case, tmp_path / case.name) == expected


@pytest.mark.parametrize("rank", [32, 33])
def test_rank_is_refused_above_the_largest_that_is_served(
    engines: dict[str, str], tmp_path: Path, rank: int
) -> None:
    """The engine with two adapters was started for the rank of the larger one, 20."""
    case = Case(f"rank_{rank}", rank=rank, weights=lambda: tensors(rank))
    answer = loaded(engines["two"], case, tmp_path / "adapter")
    if rank == 32:
        assert answer.status_code == 200
        body = {"lora_name": case.name}
        httpx.post(f"{engines['two']}/v1/unload_lora_adapter", json=body).raise_for_status()
    else:
        assert "LoRA rank 33 is greater than max_lora_rank 32." in answer.json()["error"]["message"]


def test_name_of_the_model_is_refused(engines: dict[str, str], tmp_path: Path) -> None:
    answer = loaded(engines["two"], Case(NAME), tmp_path / NAME)
    assert answer.status_code == 400
    assert "conflicts with a served base model" in answer.json()["error"]["message"]


PATTERNS = (
    Case("ranks", config={"rank_pattern": {"q_proj": 16}}, weights=lambda: tensors(8, q_proj=16)),
    Case("scales", config={"alpha_pattern": {"q_proj": 64}}),
)


@pytest.mark.parametrize("case", PATTERNS, ids=lambda case: case.name)
@pytest.mark.parametrize(
    ("image", "accepted"),
    [
        ("vllm/vllm-openai:v0.31.0", False),
        ("registry.example:5000/vllm:v0.32.0", True),
        ("registry.example:5000/vllm:v1.0.1-cu130", True),
        ("registry.example:5000/vllm:cu130", False),
    ],
)
def test_patterns_need_a_version_that_reads_them(
    tmp_path: Path, case: Case, image: str, *, accepted: bool
) -> None:
    model = hub_directory(tmp_path / "model") | {"shape": SHAPE}
    data = site_of({**model, "adapters": [case.write(tmp_path / "adapter")]})
    data["vllm_image"] = f"{image}@sha256:{'ab' * 32}"
    if accepted:
        read_settings(data)
        return
    with pytest.raises(SettingsError) as refused:
        read_settings(data)
    (problem,) = refused.value.problems
    assert "which vLLM ignores before 0.32" in problem.what


@pytest.mark.parametrize("case", PATTERNS, ids=lambda case: case.name)
def test_newer_engine_reads_patterns(served: Callable[[Case], str], case: Case) -> None:
    assert served(case)


@pytest.mark.parametrize(("largest", "given"), [(16, "16"), (40, "64"), (512, "512")])
def test_engine_is_started_for_the_largest_rank_of_a_pattern(
    tmp_path: Path, largest: int, given: str
) -> None:
    adapter = write_adapter(
        tmp_path / "a",
        8,
        tensors(8, q_proj=largest),
        rank_pattern={"layers.0.self_attn.q_proj": largest, "q_proj": largest},
    )
    data = site_of({**hub_directory(tmp_path / "model"), "adapters": [adapter]})
    data["vllm_image"] = f"vllm/vllm-openai:v0.32.0@sha256:{'ab' * 32}"
    command, _ = started_as(data, tmp_path, 8000)
    assert command[command.index("--max-lora-rank") + 1] == given
