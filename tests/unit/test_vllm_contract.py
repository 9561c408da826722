"""What vLLM answers: the double, or a real engine, as vLLM 0.32.0 was recorded.

`script/test engines` starts the real engine and sets LLMHOST_CONTRACT_VLLM to its URL, and
LLMHOST_CONTRACT_VLLM_POOLING to that of a pooling model. How the recordings were made:
docs/evidence/vllm.md.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.unit.recorded_shapes import answer_of, send
from tests.unit.vllm_site import double

RECORDED = json.loads((Path(__file__).parent / "data/vllm-0.32.0.json").read_text())
URLS = {"generate": "LLMHOST_CONTRACT_VLLM", "pooling": "LLMHOST_CONTRACT_VLLM_POOLING"}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URL of an engine of each kind."""
    if real := {kind: os.environ[name] for kind, name in URLS.items() if name in os.environ}:
        yield real
        return
    directory = tmp_path_factory.mktemp("vllm")
    with double(directory, "generate") as generate, double(directory, "pooling") as pooling:
        yield {"generate": generate, "pooling": pooling}


def name_of(recorded: Json) -> str:
    return f"{recorded['runner']} {recorded['method']} {recorded['path']} {recorded['body']}"[:90]


@pytest.mark.parametrize("recorded", RECORDED, ids=name_of)
def test_answer_is_as_recorded(engines: dict[str, str], recorded: Json) -> None:
    with httpx.Client(base_url=engines[recorded["runner"]], timeout=300) as client:
        answer = answer_of(send(client, recorded))
    assert answer == {key: recorded[key] for key in answer}


@pytest.fixture
def client(engines: dict[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=engines["generate"], timeout=300) as client:
        yield client


def test_answer_has_as_many_tokens_as_were_asked_for(client: httpx.Client) -> None:
    body = {"model": "writer", "prompt": "One, two,", "max_tokens": 5, "ignore_eos": True}
    usage = client.post("/v1/completions", json=body).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (9, 5)


def test_answer_in_json_begins_as_json(client: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "writer", "messages": messages, "response_format": wanted, "max_tokens": 20}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"].lstrip().startswith("{")


def test_metrics_are_those_of_the_engine(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
    for name in ("num_requests_running", "kv_cache_usage_perc", "generation_tokens_total"):
        assert f"# TYPE vllm:{name} " in answer.text


def test_openai_client_streams_a_response(client: httpx.Client) -> None:
    asked = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none")
    events = list(
        asked.responses.create(model="writer", input="Hi", max_output_tokens=4, stream=True)
    )
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]


def test_anthropic_client_streams_a_message(client: httpx.Client) -> None:
    asked = anthropic.Anthropic(base_url=str(client.base_url), api_key="none")
    with asked.messages.stream(
        model="writer", max_tokens=4, messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        message = stream.get_final_message()
    assert message.usage.output_tokens == 4 and message.stop_reason == "max_tokens"
