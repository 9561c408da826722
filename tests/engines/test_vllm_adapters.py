"""Adapters on the real vLLM, for CPUs, started as rendered without, with one and with two; and with
two of a model that embeds."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from llmhost.models.lora import RANKS
from testbed.real_vllm import VERSION, adapter_room, installed, real_vllm, tiny_model
from tests.engines.contract import Engine, run_contract
from tests.integration.local_gateway import free_ports
from tests.unit.peft_adapters import tensors, two_adapters, write_adapter
from tests.unit.test_adapter_room import planned_room
from tests.unit.test_vllm_adapters import RUNTIME_LOADING, URLS
from tests.unit.vllm_site import hub_directory, site_of, started_as

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

SMALL = ["--enforce-eager", "--kv-cache-memory-bytes", "268435456"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def urls(directory: Path) -> Iterator[dict[str, str]]:
    model = hub_directory(tiny_model(directory / "qwen3"))
    both, found = two_adapters(directory), {}
    with ExitStack() as running:
        for kind, adapters in (("plain", []), ("one", both[:1]), ("two", both), ("pooling", both)):
            (port,) = free_ports(1)
            found[kind] = f"http://127.0.0.1:{port}"
            task = "embed" if kind == "pooling" else "generate"
            given = {**model, "adapters": adapters, "task": task}
            command, environment = started_as(
                site_of(given, extra_arguments=SMALL), directory, port
            )
            if kind in ("two", "pooling"):
                environment |= RUNTIME_LOADING
            log = directory / f"{kind}.log"
            running.enter_context(real_vllm(command, environment, found[kind], log))
        yield found


@pytest.fixture(scope="module")
def engine(urls: dict[str, str]) -> Engine:
    return Engine("vLLM", VERSION, "real", urls["two"])


@pytest.mark.usefixtures("engine")
def test_real_engine_keeps_the_contract_of_adapters(
    urls: dict[str, str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    named = {URLS[kind]: url for kind, url in urls.items()}
    tests = "tests/unit/test_vllm_adapters.py"
    record_property("cases", run_contract(tests, named, tmp_path / "report.xml"))


@pytest.mark.usefixtures("engine")
def test_ranks_are_those_of_the_package() -> None:
    program = (
        "from typing import get_args; from vllm.config.lora import MaxLoRARanks;"
        "print(*get_args(MaxLoRARanks))"
    )
    python = str(installed() / "bin/python")
    said = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert tuple(map(int, said.stdout.split("\n")[-2].split())) == RANKS


@pytest.mark.parametrize(
    ("kind", "gpus"), [("qwen3", 1), ("llama-tied", 1), ("qwen3_moe", 1), ("qwen3_moe", 2)]
)
def test_plan_has_the_room_that_is_reserved(kind: str, gpus: int, tmp_path: Path) -> None:
    """Of one GPU exactly; of each of two, up to as much again."""
    room = set(adapter_room(tmp_path / "model", kind, 32, 2, gpus))
    model = hub_directory(tmp_path / "model")
    adapters = two_adapters(tmp_path)
    planned = planned_room(model, adapters, gpus)
    assert room == {planned} if gpus == 1 else max(room) < planned < 2 * max(room)


def test_scale_of_an_adapter_is_that_of_peft(engine: Engine, tmp_path: Path) -> None:
    """It is alpha / r, and alpha / sqrt(r) for rsLoRA: adapters of the same scale answer alike."""
    weights = tensors(16)
    plain = write_adapter(tmp_path / "by_rank", 16, weights, lora_alpha=16)
    root = write_adapter(tmp_path / "by_root", 16, weights, lora_alpha=4, use_rslora=True)
    other = write_adapter(tmp_path / "other", 16, weights, lora_alpha=4)
    answers = [_logprobs(engine.url, each) for each in (plain, root, other)]
    assert answers[0] == answers[1] != answers[2]


def _logprobs(url: str, adapter: dict[str, str]) -> list[float]:
    name = adapter["name"]
    body = {"lora_name": name, "lora_path": adapter["source"]}
    httpx.post(f"{url}/v1/load_lora_adapter", json=body, timeout=300).raise_for_status()
    asked = {"model": name, "prompt": "One, two,", "max_tokens": 8, "temperature": 0, "logprobs": 1}
    answer = httpx.post(f"{url}/v1/completions", json=asked, timeout=300).raise_for_status()
    httpx.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": name}).raise_for_status()
    found: list[float] = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
    return found
