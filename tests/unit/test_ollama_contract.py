"""What Ollama answers: the double, or a real engine, as Ollama 0.31.1 was recorded.

For a real engine, set LLMHOST_CONTRACT_OLLAMA to its URL. It needs the roles of the recordings:
`router`, a model that generates text and has a system prompt and parameters, and `embedder`, with
`OLLAMA_NO_CLOUD=1`, a read-only store and no network. How the recordings were made:
docs/evidence/ollama.md.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.shapes import Comparison, Json
from tests.unit.ollama_store import bake, model, served

RECORDED = json.loads((Path(__file__).parent / "data/ollama-0.31.1.json").read_text())
DIFFERENCES = Comparison(
    # The values of these keys are the same for every model; the keys of `model_info` are not.
    literal=("error", "done", "done_reason", "model", "object", "status", "system_fingerprint"),
    open_keys=("model_info",),
    common=("general.architecture",),
    place="/opt/ollama",
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    if url := os.environ.get("LLMHOST_CONTRACT_OLLAMA"):
        with httpx.Client(base_url=url, timeout=300) as client:
            yield client
        return
    directory = tmp_path_factory.mktemp("ollama")
    parameters = {"temperature": 0, "stop": ["<end>"], "max_tokens": 64}
    router = model(directory, "router", system_prompt="You are a pirate.", parameters=parameters)
    embedder = model(directory, "embedder", task="embed", context_tokens=256)
    store = bake([router, embedder], directory)
    with served(store, OLLAMA_KEEP_ALIVE="-1s") as client:
        for name, route in (("router", "generate"), ("embedder", "embed")):
            client.post(f"/api/{route}", json={"model": name}).raise_for_status()
        yield client


def request(recorded: Json) -> tuple[str, str, bytes]:
    """Method, path and body of a recorded request; long ones were cut while they were recorded."""
    method, path, body = recorded["req"].split(" ", 2)
    if body.startswith("b'"):
        return method, path, body[2:-1].encode()
    if body and not body.endswith("}"):
        body += " false}"
    return method, path, body.encode()


def send(engine: httpx.Client, recorded: Json) -> httpx.Response:
    method, path, body = request(recorded)
    return engine.request(
        method, path, content=body, headers={"Content-Type": "application/json"} if body else {}
    )


def name_of(recorded: Json) -> str:
    return str(re.sub(r"\s+", " ", recorded["req"]))[:90].strip()


@pytest.mark.parametrize("recorded", RECORDED, ids=name_of)
def test_answer_is_as_recorded(engine: httpx.Client, recorded: Json) -> None:
    answer = send(engine, recorded)
    assert answer.status_code == recorded["status"], answer.text
    assert answer.headers["Content-Type"] == recorded["ct"]
    shape = recorded["shape"]
    if isinstance(shape, str):
        assert f"TEXT {answer.text}" == shape
    elif "LINES" in shape:
        lines = [line for line in answer.text.splitlines() if line]
        assert lines[-1].startswith(shape["last"][:6])
        parts = [json.loads(line.removeprefix("data: ")) for line in lines if "[DONE]" not in line]
        for part, expected in zip((parts[0], parts[-1]), shape["LINES"], strict=True):
            assert not list(DIFFERENCES.differences(part, expected))
    else:
        assert not list(DIFFERENCES.differences(answer.json(), shape))


def test_contract_sees_a_difference() -> None:
    expected = {"error": {"message": "str", "code": None}}
    assert list(DIFFERENCES.differences({"error": "text"}, expected))
    assert list(DIFFERENCES.differences({"error": {"message": "text"}}, expected))
    assert not list(DIFFERENCES.differences({"error": {"message": "text", "code": None}}, expected))


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/api/generate", {"model": "router", "prompt": 5}, 400, "GenerateRequest.prompt"),
        ("/api/embed", {"model": "router", "input": "x"}, 501, "embeddings"),
        ("/api/chat", {"model": ""}, 400, "model is required"),
        ("/v1/chat/completions", {"model": "nope", "messages": [1]}, 404, "not found"),
    ],
)
def test_mistake_is_an_error_of_the_engine(
    engine: httpx.Client, path: str, body: Json, status: int, told: str
) -> None:
    """Measured as the recordings were, and not among them."""
    if path.startswith("/v1") and body.get("messages"):
        body = body | {"messages": [{"role": "user", "content": "Hi"}]}
    answer = engine.post(path, json=body)
    assert answer.status_code == status and told in answer.text


def test_anthropic_message_has_text_and_usage(engine: httpx.Client) -> None:
    """anthropic/anthropic.go, MessagesResponse and StreamConverter."""
    body = {"model": "router", "max_tokens": 6, "messages": [{"role": "user", "content": "Hi"}]}
    answer = engine.post("/v1/messages", json=body).json()
    assert (answer["type"], answer["role"]) == ("message", "assistant")
    assert answer["content"][0]["type"] == "text" and answer["content"][0]["text"]
    assert answer["stop_reason"] == "max_tokens" and answer["usage"]["output_tokens"] == 6
    lines = engine.post("/v1/messages", json=body | {"stream": True}).text.splitlines()
    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert events[0] == "message_start" and events[-1] == "message_stop"


def test_unloaded_model_comes_back_with_the_engine_s_own_time(engine: httpx.Client) -> None:
    """server/sched.go: a request without keep_alive gets that of the environment."""
    body = {"model": "router", "keep_alive": 0}
    assert engine.post("/api/generate", json=body).json()["done_reason"] == "unload"
    running = {each["name"] for each in engine.get("/api/ps").json()["models"]}
    assert running == {"embedder:latest"}
    engine.post("/api/generate", json={"model": "router"})
    (again,) = [e for e in engine.get("/api/ps").json()["models"] if e["name"] == "router:latest"]
    assert again["expires_at"] > "2200" or os.environ.get("LLMHOST_CONTRACT_OLLAMA")
