"""Fields of a request that change the engine for all clients, through the real nginx to the double
of Ollama: only an administrator may send them."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest

from llmhost.gateway.keys import digest, new_key
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway
from tests.unit.ollama_store import bake, model, served

pytestmark = pytest.mark.machines

APP, ONLY_OLLAMA, ADMIN = (new_key() for _ in range(3))
Data = dict[str, Any]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = tmp_path_factory.mktemp("ollama")
    roles = [model(directory, "brain"), model(directory, "vector", task="embed")]
    store = bake(roles, directory)
    with served(store, OLLAMA_KEEP_ALIVE="-1s") as client:
        yield client


def inventory(engine: httpx.Client, **more: object) -> Data:
    port, status = free_ports(2)
    brain = {"name": "brain", "service": "ollama", "source": "https://x/m", "sha256": "1" * 64}
    return {
        "services": ["ollama"],
        "models": [brain],
        "ollama_port": engine.base_url.port,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_max_body_mib": 8,
        "api_clients": [
            {"name": "app", "sha256": digest(APP)},
            {"name": "only-ollama", "sha256": digest(ONLY_OLLAMA), "scope": ["ollama"]},
            {"name": "admin", "sha256": digest(ADMIN), "scope": "admin"},
        ],
        **more,
    }


@pytest.fixture(scope="module")
def gateway(
    engine: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalGateway]:
    data = inventory(engine, gateway_tls="off")
    with local_gateway(data, tmp_path_factory.mktemp("fields") / "nginx") as running:
        yield running


@pytest.fixture
def loaded(engine: httpx.Client) -> httpx.Client:
    """The engine, with `brain` loaded for good and with its own context."""
    engine.post("/api/generate", json={"model": "brain", "keep_alive": -1}).raise_for_status()
    return engine


def state(engine: httpx.Client) -> list[tuple[str, int]]:
    running = engine.get("/api/ps").json()["models"]
    return [
        (each["name"], each["context_length"]) for each in running if each["expires_at"] > "2100"
    ]


def post(gateway: LocalGateway, path: str, body: bytes | Data, key: str = APP) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(
        f"{gateway.url}{path}",
        content=content,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        timeout=30,
    )


CONTROLS = {
    "unload": b'{"model":"brain","keep_alive":0}',
    "stay": b'{"model":"brain","keep_alive":"24h"}',
    "context": b'{"model":"brain","prompt":"Hi","options":{"num_ctx":4096}}',
    "to the CPU": b'{"model":"brain","prompt":"Hi","options":{"num_gpu":0}}',
    "threads": b'{"model":"brain","prompt":"Hi","options":{"num_thread":500}}',
    "shift": b'{"model":"brain","prompt":"Hi","shift":false}',
    "unknown option": b'{"model":"brain","prompt":"Hi","options":{"num_new":1}}',
    "other case": b'{"model":"brain","Keep_Alive":0}',
    "Kelvin sign": '{"model":"brain","\u212aeep_alive":0}'.encode(),
    "escaped Kelvin sign": rb'{"model":"brain","\u212aeep_alive":0}',
    "long s": '{"model":"brain","option\u017f":{"num_ctx":4096}}'.encode(),
    "escaped": rb'{"model":"brain","\u006beep_alive":0}',
    "after an escaped backslash": rb'{"model":"brain","system":"\\","\u004beep_alive":0}',
    "escaped option": rb'{"model":"brain","options":{"num\u005fctx":4096}}',
    "twice": b'{"model":"brain","options":{"seed":1},"OPTIONS":{"num_ctx":4096}}',
    "after null": b'{"model":"brain","keep_alive":null,"keep_alive":0}',
    "after a string": rb'{"model":"brain","system":"a \" {[ \\","keep_alive":0}',
    "after objects": b'{"model":"brain","format":{"a":[{}]},"keep_alive":0}',
    "spaces": b'\n{ "model" : "brain" ,\t"keep_alive"\r\n :\n 0 }',
    "null-like": b'{"model":"brain","keep_alive": nullx}',
    "an option called ok": b'{"model":"brain","options":{"ok":1,"num_ctx":4096}}',
    "many escapes": b'{"model":"brain","prompt":"' + rb"\"{" * 100_000 + b'","keep_alive":0}',
    "large": b'{"model":"brain","prompt":"' + b"a" * 2_000_000 + b'","keep_alive":0}',
}


@pytest.mark.parametrize("body", CONTROLS.values(), ids=CONTROLS)
@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/embed", "/api/embeddings"])
def test_client_cannot_unload_resize_or_move_a_model(
    gateway: LocalGateway, loaded: httpx.Client, path: str, body: bytes
) -> None:
    before = state(loaded)
    for key in (APP, ONLY_OLLAMA):
        answer = post(gateway, path, body, key)
        assert answer.status_code == 403, answer.text
        assert answer.json()["error"]["code"] == "field_denied"
    assert state(loaded) == before


UNLOAD = ("unload", "other case", "Kelvin sign", "escaped Kelvin sign", "escaped", "after null")


@pytest.mark.parametrize("body", [CONTROLS[name] for name in UNLOAD], ids=UNLOAD)
def test_what_is_refused_would_have_had_an_effect(loaded: httpx.Client, body: bytes) -> None:
    loaded.post("/api/generate", content=body).raise_for_status()
    assert "brain:latest" not in dict(state(loaded))


def test_refusal_names_the_field_and_is_logged(gateway: LocalGateway) -> None:
    headers = {"Authorization": f"Bearer {APP}", "X-Request-ID": "refused-field"}
    body = {"model": "brain", "options": {"num_ctx": 9}}
    answer = httpx.post(f"{gateway.url}/api/chat", json=body, headers=headers)
    assert "may not set num_ctx" in answer.json()["error"]["message"]
    line = gateway.logged("refused-field")
    told = (line["client"], line["route"], line["status"], line["refusal"])
    assert told == ("app", "/api/chat", 403, "field_denied")
    strange = {"model": "brain", "options": {'"}<b>': 1}}
    assert "may not set such an option" in post(gateway, "/api/chat", strange).text


def test_administrator_unloads_and_resizes(gateway: LocalGateway, loaded: httpx.Client) -> None:
    body = {"model": "brain", "options": {"num_ctx": 1024}, "prompt": "Hi"}
    assert post(gateway, "/api/generate", body, ADMIN).status_code == 200
    assert ("brain:latest", 1024) in state(loaded)
    unload = {"model": "brain", "keep_alive": 0}
    assert post(gateway, "/api/generate", unload, ADMIN).json()["done_reason"] == "unload"
    assert "brain:latest" not in dict(state(loaded))


ALLOWED: dict[str, Data] = {
    "sampling": {"options": {"temperature": 0.1, "num_predict": 4, "stop": ["a"], "seed": 1}},
    "schema": {"format": {"type": "object", "properties": {"keep_alive": {"type": "number"}}}},
    "text": {"system": '"keep_alive": 0, "options": {"num_ctx": 1}'},
    "null": {"keep_alive": None, "options": {"num_ctx": None, "seed": 1}},
    "large": {"system": "b" * 2_000_000},
}


@pytest.mark.parametrize("more", ALLOWED.values(), ids=ALLOWED)
def test_other_fields_pass(gateway: LocalGateway, loaded: httpx.Client, more: Data) -> None:
    body = {"model": "brain", "prompt": "Hi", "stream": False, **more}
    answer = post(gateway, "/api/generate", body)
    assert answer.status_code == 200 and answer.json()["done"], answer.text


@pytest.mark.parametrize("body", [b"", b"{bad", b"[]", b"5", b'{"a":"b",' * 300_000])
def test_body_that_is_no_object_is_the_engine_s_error_or_the_gateway_s(
    gateway: LocalGateway, body: bytes
) -> None:
    assert post(gateway, "/api/chat", body).status_code == 400


def test_field_is_found_behind_what_takes_long_to_read(gateway: LocalGateway) -> None:
    """Of 7 MiB: blanks, numbers, escapes, and names of which none is that of a field."""
    fillers = {
        b" " * 7_000_000: 403,
        b'"context":[' + b"1," * 3_500_000 + b"1],": 403,
        rb'"system":"' + rb"\n" * 3_500_000 + b'",': 403,
        b'"' + rb"\u0041" * 1_100_000 + b'":1,': 403,
        rb'"system":"' + rb"a\n" * 1_200_000 + b'",': 400,
    }
    for filler, status in fillers.items():
        body = b'{"model":"brain",' + filler + b'"keep_alive":0}'
        assert post(gateway, "/api/generate", body).status_code == status


def test_chunked_body_is_read_too(gateway: LocalGateway, loaded: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {APP}"}
    for part, status in ((b'"keep_alive":0}', 403), (b'"prompt":"Hi","stream":false}', 200)):
        chunks = iter([b'{"model":"brain",', part])
        answer = httpx.post(f"{gateway.url}/api/generate", content=chunks, headers=headers)
        assert answer.status_code == status
    assert state(loaded)


def test_body_of_http_2_is_read_too(loaded: httpx.Client, tmp_path: Path) -> None:
    data = inventory(loaded, gateway_ca_directory=str(tmp_path / "ca"))
    with local_gateway(data, tmp_path / "nginx") as gateway:
        for part, status in (('"keep_alive":0}', "2 403"), ('"stream":false}', "2 200")):
            command = [
                "curl",
                "-sS",
                "--http2",
                "--cacert",
                str(gateway.settings.gateway.ca_certificate),
            ]
            command += ["-H", f"Authorization: Bearer {APP}", "-o", str(tmp_path / "answer")]
            command += ["-w", "%{http_version} %{http_code}", f"{gateway.url}/api/generate", "-d"]
            body = '{"model":"brain","prompt":"Hi",' + part
            run = subprocess.run([*command, body], capture_output=True, text=True, timeout=60)
            assert run.stdout == status, run.stderr
        # Of a length that is not known when the request begins.
        command[-1:] = ["-T", "-", "-X", "POST"]
        run = subprocess.run(command, input=body, capture_output=True, text=True, timeout=60)
        assert run.stdout == "2 200", run.stderr


def test_checked_paths_are_not_reached_from_outside(gateway: LocalGateway) -> None:
    for path in ("/_llmhost/read", "/_llmhost/checked/api/chat", "/API/chat"):
        assert post(gateway, path, {"model": "brain", "keep_alive": 0}, APP).status_code == 404


def test_ollama_s_client_streams_and_gets_its_own_exception(gateway: LocalGateway) -> None:
    client = ollama.Client(gateway.url, headers={"Authorization": f"Bearer {APP}"})
    parts = list(client.generate("brain", "Hi", stream=True))
    assert len(parts) > 3 and parts[-1].done
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate("brain", "Hi", keep_alive=0)
    assert caught.value.status_code == 403


def test_other_clients_of_v1_stream_and_look_a_model_up(gateway: LocalGateway) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP, max_retries=0)
    assert client.models.retrieve("brain").id == "brain"
    assert client.responses.create(model="brain", input="Hi").output_text
    events = [
        event.type for event in client.responses.create(model="brain", input="Hi", stream=True)
    ]
    assert events[0] == "response.created" and events[-1] == "response.completed"
    body = {"model": "brain", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"X-API-Key": APP, "anthropic-version": "2023-06-01"}
    answer = httpx.post(f"{gateway.url}/v1/messages", json=body, headers=headers).json()
    assert answer["content"][0]["text"] and answer["stop_reason"] == "max_tokens"
