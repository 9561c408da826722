"""Scales of adapters in requests to llama.cpp, through the real nginx to a double of the engine:
they would change answers to other clients, so only an administrator may send them."""

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, leave, local_gateway
from tests.unit.model_files import lora_pair, write_lora

pytestmark = pytest.mark.machines

APP, ONLY_LLAMACPP, ADMIN = (new_key() for _ in range(3))
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
OFF = {"lora": [{"id": 0, "scale": 0}]}
Data = dict[str, Any]


def model(name: str, service: str = "llamacpp", **more: object) -> Data:
    return {"name": name, "service": service, "source": "https://x/m", "sha256": "1" * 64, **more}


WAYS: dict[str, Data] = {
    "one service": {"services": ["llamacpp"], "models": []},
    "by model": {
        "services": ["embeddings", "llamacpp"],
        "models": [model("vector", "embeddings", task="embed"), model("base")],
    },
}


def inventory(way: str, engine: Engine, home: Path) -> Data:
    port, status, other = free_ports(3)
    adapter = write_lora(home / "legal.gguf", lora_pair("blk.0.attn_q.weight"))
    return {
        "services": WAYS[way]["services"],
        "models": [*WAYS[way]["models"], model("legal", adapter=str(adapter))],
        "llamacpp_port": engine.port,
        "embeddings_port": other,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "api_clients": [
            {"name": "app", "sha256": digest(APP)},
            {"name": "only-llamacpp", "sha256": digest(ONLY_LLAMACPP), "scope": ["llamacpp"]},
            {"name": "admin", "sha256": digest(ADMIN), "scope": "admin"},
        ],
    }


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(free_ports(1)[0]) as running:
        yield running


@pytest.fixture(scope="module", params=WAYS)
def gateway(
    request: pytest.FixtureRequest, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalGateway]:
    home = tmp_path_factory.mktemp("lora")
    with local_gateway(inventory(request.param, engine, home), home / "nginx") as running:
        yield running


def post(
    gateway: LocalGateway, path: str, body: Data | bytes, key: str = APP, **headers: str
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    return httpx.post(f"{gateway.url}{path}", content=content, headers=sent, timeout=60)


def paths(gateway: LocalGateway) -> tuple[str, ...]:
    below = gateway.settings.services[0] != "llamacpp"
    return (*PATHS, *(f"/llamacpp{path}" for path in PATHS if below))


@pytest.mark.parametrize("key", [APP, ONLY_LLAMACPP], ids=["app", "only-llamacpp"])
def test_scales_of_adapters_are_refused(gateway: LocalGateway, engine: Engine, key: str) -> None:
    before = len(engine.requests)
    for path in paths(gateway):
        bodies: list[Data] = [OFF, {"x": "y" * 300_000, **OFF}, {"lora": []}]
        for more in bodies:
            answer = post(gateway, path, {"model": "legal", **more}, key)
            assert answer.status_code == 403, (path, answer.text)
            assert answer.json()["error"]["code"] == "field_denied"
            assert "may not set lora" in answer.json()["error"]["message"]
    spelled = b'{"model":"legal","lor\\u0061":[{"id":0,"scale":0}]}'
    assert post(gateway, PATHS[0], spelled, key).status_code == 403
    assert len(engine.requests) == before


def test_administrator_may_send_them(gateway: LocalGateway, engine: Engine) -> None:
    for path in paths(gateway):
        assert post(gateway, path, {"model": "legal", **OFF}, ADMIN).status_code == 200
        assert engine.requests[-1].options["lora"] == OFF["lora"]


def test_gateway_in_front_has_an_administrator_s_key_and_may_not(
    gateway: LocalGateway, engine: Engine
) -> None:
    """It passes the bodies of its own clients on, whatever these may do there."""
    before = len(engine.requests)
    for path in paths(gateway):
        body = {"model": "legal", **OFF}
        answer = post(gateway, path, body, ADMIN, **{"X-LLMHost-Pool": "1"})
        assert answer.status_code == 403, (path, answer.text)
    assert len(engine.requests) == before


def test_compressed_body_is_refused(gateway: LocalGateway, engine: Engine) -> None:
    before = len(engine.requests)
    body = gzip.compress(json.dumps({"model": "legal", **OFF}).encode())
    answer = post(gateway, PATHS[0], body, APP, **{"Content-Encoding": "gzip"})
    assert answer.status_code == 400 and len(engine.requests) == before


OTHERS: dict[str, Data] = {
    "null": {"lora": None},
    "in a text": {"messages": [{"role": "user", "content": '{"lora": 1}'}]},
    "in a schema": {"tools": [{"parameters": {"properties": {"lora": {"type": "array"}}}}]},
    "options": {"options": {"num_ctx": 1}},
    "large": {"x": "y" * 300_000},
}


@pytest.mark.parametrize("more", OTHERS.values(), ids=OTHERS)
def test_other_fields_pass(gateway: LocalGateway, engine: Engine, more: Data) -> None:
    for path in paths(gateway):
        body = {"model": "legal", **more}
        answer = post(gateway, path, body)
        assert answer.status_code == 200, (path, answer.text)
        assert engine.requests[-1].options == body


def test_without_an_adapter_no_body_is_read(engine: Engine, tmp_path: Path) -> None:
    data = inventory("one service", engine, tmp_path) | {"models": [model("base")]}
    with local_gateway(data, tmp_path / "nginx") as running:
        assert post(running, PATHS[0], {"model": "base", **OFF}).status_code == 200


@pytest.mark.parametrize("pieces", [1, 2], ids=["in one piece", "after its head"])
@pytest.mark.parametrize("way", WAYS)
def test_client_that_leaves_frees_the_engine(
    engine: Engine, tmp_path: Path, way: str, pieces: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        data = inventory(way, engine, tmp_path) | {"llamacpp_port": listener.getsockname()[1]}
        with local_gateway(data, tmp_path / "nginx") as running:
            leave(running, listener, PATHS[0], json.dumps({"model": "legal"}), APP, pieces)


def test_request_without_a_body_gets_a_reason(gateway: LocalGateway) -> None:
    answer = post(gateway, PATHS[0], b"")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in ("request_malformed", "model_missing")
