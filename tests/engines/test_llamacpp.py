"""What llama.cpp's server answers as llmhost starts it: the real one, with a model that answers.

`python -m tests.engines.record_llamacpp` writes the recordings.
"""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from llmhost.inventory.reader import read_settings
from testbed import smollm2
from testbed.engine import engine_archive
from tests.engines.container import USER, Container, EngineImage, container
from tests.engines.contract import Engine, llamacpp_client
from tests.shapes import Comparison, Json

RECORDED = json.loads((Path(__file__).parent / "recorded/llamacpp.json").read_text())
LITERAL = ("object", "type", "finish_reason", "role", "model", "status")
DIFFERENCES = Comparison(literal=LITERAL)
QUESTION = {"role": "user", "content": "What is a computer? Answer in one short sentence."}
ASKED = {"model": "router", "messages": [QUESTION], "temperature": 0, "max_tokens": 64}


def data() -> Json:
    """The inventory of the recordings."""
    model: Json = {"name": "router", "source": str(smollm2.gguf()), "sha256": smollm2.SHA256}
    model |= {"context_tokens": 512, "parallel": 2, "parameters": {"temperature": 0, "top_k": 20}}
    return {
        "services": ["llamacpp"],
        "llamacpp_threads": 2,
        "models": [model],
        "api_clients": [{"name": "test", "sha256": "ab" * 32}],
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    place = tmp_path_factory.mktemp("llamacpp")
    with container(
        read_settings(data()), "llamacpp", EngineImage(engine_archive()), place
    ) as found:
        yield found


@pytest.fixture(scope="module")
def engine(server: Container) -> Engine:
    version = httpx.get(f"{server.url}/props").json()["build_info"]
    return Engine("llama.cpp", version, "real", server.url)


@pytest.fixture(scope="module")
def api(engine: Engine) -> Iterator[httpx.Client]:
    with llamacpp_client(engine) as client:
        yield client


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda each: each["request"][:80])
def test_answer_is_as_recorded(api: httpx.Client, recorded: Json) -> None:
    method, path, *body = recorded["request"].split(" ", 2)
    answer = api.request(method, path, content="".join(body))
    assert (answer.status_code, answer.headers.get("Content-Type")) == (
        recorded["status"],
        recorded["content_type"],
    )
    if recorded["shape"] is not None:
        assert not list(DIFFERENCES.differences(answer.json(), recorded["shape"]))


@pytest.fixture(scope="module")
def choice(api: httpx.Client) -> Json:
    (found,) = api.post("/v1/chat/completions", json=ASKED).json()["choices"]
    assert isinstance(found, dict)
    return found


def test_answer_is_a_sentence(choice: Json) -> None:
    text = choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    assert "computer" in text and text[0].isupper() and text.endswith(".")


def events(api: httpx.Client, body: Json) -> list[Any]:
    answer = api.post("/v1/chat/completions", json={**body, "stream": True})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *lines, end = [line for line in answer.text.splitlines() if line]
    assert end == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_stream_has_the_same_words_in_pieces(api: httpx.Client, choice: Json) -> None:
    choices = [event["choices"][0] for event in events(api, ASKED)]
    pieces = [choice["delta"].get("content") or "" for choice in choices]
    assert "".join(pieces) == choice["message"]["content"] and sum(map(bool, pieces)) > 5
    assert choices[0]["delta"]["role"] == "assistant"
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons[-1] == "stop" and set(reasons[:-1]) == {None}


def test_stream_ends_with_the_usage_on_request(api: httpx.Client) -> None:
    *_, last = events(api, {**ASKED, "max_tokens": 4, "stream_options": {"include_usage": True}})
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 4


def test_connection_is_closed_after_a_stream_without_notice(engine: Engine) -> None:
    """The gateway therefore opens a connection for each request: Service.closes_after_streams."""
    address = urlsplit(engine.url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=60)
    body = json.dumps({**ASKED, "max_tokens": 2, "stream": True})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.getheader("Connection") != "close"
    assert answer.read().endswith(b"data: [DONE]\n\n")
    connection.sock.settimeout(3)  # idle connections are closed after 5 s
    assert connection.sock.recv(1) == b""
    connection.close()


def test_anthropic_message_is_streamed_in_events(api: httpx.Client) -> None:
    body = {**ASKED, "max_tokens": 4, "stream": True}
    lines = api.post("/v1/messages", json=body).text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert (names[0], names[-1]) == ("message_start", "message_stop")
    assert names.count("content_block_delta") > 1


def test_response_is_streamed_in_events(api: httpx.Client) -> None:
    body = {"model": "router", "input": "Hi", "max_output_tokens": 4, "stream": True}
    lines = api.post("/v1/responses", json=body).text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert (names[0], names[-1]) == ("response.created", "response.completed")
    assert names.count("response.output_text.delta") > 1


def test_answer_follows_a_schema(api: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    kind = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = {**ASKED, "max_tokens": 32, "response_format": kind}
    (choice,) = api.post("/v1/chat/completions", json=body).json()["choices"]
    assert isinstance(json.loads(choice["message"]["content"])["n"], int)


def test_parameters_of_the_model_are_the_defaults(api: httpx.Client) -> None:
    defaults = api.get("/props").json()["default_generation_settings"]
    assert (defaults["n_ctx"], defaults["params"]["top_k"]) == (512, 20)
    assert defaults["params"]["temperature"] == 0
    answers = {
        api.post("/v1/completions", json={"prompt": "One, two,", "max_tokens": 8}).json()[
            "choices"
        ][0]["text"]
        for _ in range(3)
    }
    assert len(answers) == 1


def test_prompt_beyond_the_context_is_refused_by_its_size(api: httpx.Client) -> None:
    body = {**ASKED, "messages": [{"role": "user", "content": "word " * 600}]}
    answer = api.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "exceed_context_size_error")
    assert error["n_prompt_tokens"] > error["n_ctx"] == 512


def test_requests_in_parallel_have_slots_of_their_own(api: httpx.Client) -> None:
    assert api.get("/props").json()["total_slots"] == 2


def test_health_check_passes_and_fails_with_the_engine(server: Container) -> None:
    assert server.is_healthy()
    command = [word.replace("8080", "8079") for word in server.declared["healthcheck"]["test"][1:]]
    assert server.run(*command).returncode != 0


def test_it_runs_as_declared(server: Container) -> None:
    place = Path(f"/proc/{server.process.pid}")
    environment = place.joinpath("environ").read_text().split("\0")
    assert "LLAMA_ARG_OFFLINE=1" in environment
    status = dict(line.split(":\t") for line in place.joinpath("status").read_text().splitlines())
    assert status["Uid"].split() == [str(USER)] * 4
    assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1"


def test_it_has_no_network(server: Container) -> None:
    away = server.run("curl", "--silent", "--max-time", "5", "http://192.0.2.1/")
    assert away.returncode == 7  # no route: it cannot connect
