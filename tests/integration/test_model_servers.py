"""Servers that hold different models, behind one gateway: real nginx each, doubles of engines."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from llmhost.gateway.keys import digest, new_key
from testbed.process import wait_until
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway

pytestmark = pytest.mark.machines

APP, ONLY_SEARCH, GATE = (new_key() for _ in range(3))
FALLBACKS = {"brain": ["search"]}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_KEY", GATE)


def model(name: str, **more: object) -> dict[str, Any]:
    return {"name": name, "service": "ollama", "source": "https://x/m", "sha256": "1" * 64, **more}


def server(engine: int, name: str, **more: object) -> dict[str, Any]:
    port, status = free_ports(2)
    return {
        "services": ["ollama"],
        "models": [model(name)],
        "ollama_port": engine,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "api_clients": [{"name": "gate", "sha256": digest(GATE)}],
        **more,
    }


def gate(ports: dict[str, int], models: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    port, status = free_ports(2)
    return {
        "gateway_upstreams": [
            {"name": name, "address": "127.0.0.1", "port": each} for name, each in ports.items()
        ],
        "gateway_upstream_services": ["ollama"],
        "gateway_upstream_models": [{"service": "ollama", **each} for each in models],
        "gateway_upstream_key": "env:GATE_KEY",
        "gateway_upstream_tls": "off",
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "api_clients": [
            {"name": "app", "sha256": digest(APP)},
            *(
                {"name": "only-search", "sha256": digest(ONLY_SEARCH), "scope": ["search"]}
                for each in models
                if each["name"] == "search"
            ),
        ],
        **more,
    }


MODELS: list[dict[str, Any]] = [
    {"name": "brain", "servers": ["llm-1"], "context_tokens": 8192},
    {"name": "search", "servers": ["llm-2"]},
]


@contextmanager
def servers(
    place: Path, models: dict[str, str], **more: object
) -> Iterator[dict[str, tuple[LocalGateway, Engine]]]:
    """Servers by name, each with a model."""
    with ExitStack() as stack:
        found = {}
        for name, of in models.items():
            engine = stack.enter_context(Engine(free_ports(1)[0]))
            data = server(engine.port, of, **more)
            found[name] = stack.enter_context(local_gateway(data, place / name)), engine
        yield found


def ports(found: dict[str, tuple[LocalGateway, Engine]]) -> dict[str, int]:
    return {name: each.settings.gateway.port for name, (each, _) in found.items()}


def ask(gateway: LocalGateway, name: str, key: str = APP, trace: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} | ({"X-Request-ID": trace} if trace else {})
    url = f"{gateway.url}/v1/chat/completions"
    return httpx.post(url, json={"messages": [], "model": name}, headers=headers, timeout=60)


def test_request_goes_to_the_server_that_holds_its_model(tmp_path: Path) -> None:
    with (
        servers(tmp_path, {"llm-1": "brain", "llm-2": "search"}) as found,
        local_gateway(gate(ports(found), MODELS), tmp_path / "gate") as gateway,
    ):
        for name, host in (("brain", "llm-1"), ("search", "llm-2")):
            for number in range(4):
                answer = ask(gateway, name, trace=f"{name}-{number}")
                assert answer.status_code == 200, answer.text
            assert [each.options["model"] for each in found[host][1].requests] == [name] * 4
            assert gateway.logged(f"{name}-3")["variant"] == f"{name}/{host}"
        sdk = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP, max_retries=0)
        assert [each.id for each in sdk.models.list().data] == ["brain", "search"]
        assert (sdk.models.retrieve("brain").model_extra or {})["context_length"] == 8192
        with pytest.raises(openai.NotFoundError) as unknown:
            sdk.models.retrieve("other")
        assert unknown.value.code == "model_not_found"
        answer = ask(gateway, "brain", ONLY_SEARCH)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert ask(gateway, "search", ONLY_SEARCH).status_code == 200


def test_model_of_another_server_answers_for_one_that_is_down(tmp_path: Path) -> None:
    """Down is an engine, or a whole server."""
    with (
        servers(
            tmp_path, {"llm-1": "brain", "llm-2": "search"}, gateway_fallbacks=FALLBACKS
        ) as found,
        local_gateway(
            gate(ports(found), MODELS, gateway_fallbacks=FALLBACKS), tmp_path / "gate"
        ) as gateway,
    ):
        assert ask(gateway, "brain").status_code == 200
        found["llm-1"][1].__exit__(None, None, None)
        for number in range(5):
            assert ask(gateway, "brain", trace=f"engine-{number}").status_code == 200
        assert gateway.logged("engine-4")["variant"] == "search/llm-2"
        assert len(found["llm-2"][1].requests) == 5
    gone = {"llm-1": free_ports(9)[-1], "llm-2": 0}
    with servers(tmp_path / "more", {"llm-2": "search"}, gateway_fallbacks=FALLBACKS) as found:
        data = gate(gone | ports(found), MODELS, gateway_fallbacks=FALLBACKS)
        with local_gateway(data, tmp_path / "other-gate") as gateway:
            assert ask(gateway, "brain", trace="server").status_code == 200
            assert gateway.logged("server")["variant"] == "search/llm-2"


@contextmanager
def cut_off() -> Iterator[int]:
    """A port whose connections are never made: the queue of its listener is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_server_that_is_cut_off_is_left_out_after_two_requests(tmp_path: Path) -> None:
    with (
        cut_off() as gone,
        servers(tmp_path, {"llm-2": "search"}, gateway_fallbacks=FALLBACKS) as found,
        local_gateway(
            gate({"llm-1": gone} | ports(found), MODELS, gateway_fallbacks=FALLBACKS),
            tmp_path / "gate",
        ) as gateway,
    ):
        seconds = []
        for _ in range(6):
            answer = ask(gateway, "brain")
            assert answer.status_code == 200, answer.text
            seconds.append(answer.elapsed.total_seconds())
        # proxy_connect_timeout is 5 s; two failures of a server make it skipped.
        assert sum(each > 4 for each in seconds) == 2, seconds
        assert all(each < 4 for each in seconds[2:]), seconds


def test_servers_share_a_model_by_weight(tmp_path: Path) -> None:
    shares = {"brain": {"llm-1": 90, "llm-2": 10}}
    with (
        servers(tmp_path, {"llm-1": "brain", "llm-2": "brain"}) as found,
        local_gateway(
            gate(ports(found), [{"name": "brain"}], gateway_shares=shares), tmp_path / "gate"
        ) as gateway,
    ):
        for number in range(50):
            assert ask(gateway, "brain", trace=f"s{number}").status_code == 200
        assert [len(engine.requests) for _, engine in found.values()] == [45, 5]
        variants = Counter(gateway.logged(f"s{number}")["variant"] for number in range(50))
        assert variants == {"brain/llm-1": 45, "brain/llm-2": 5}


def test_drained_server_gets_no_requests_of_its_models(tmp_path: Path) -> None:
    with servers(tmp_path, {"llm-1": "brain", "llm-2": "brain"}) as found:
        data = gate(ports(found), [{"name": "brain"}])
        with local_gateway(data, tmp_path / "gate") as gateway:
            gateway.reload(data, drained=["llm-1"])
            drained = found["llm-1"][1].requests

            def asked(times: int) -> int:
                """How many of so many requests the drained server got."""
                before = len(drained)
                answers = [ask(gateway, "brain") for _ in range(times)]
                assert {answer.status_code for answer in answers} == {200}
                return len(drained) - before

            # Until then, a worker of the configuration before may still accept connections.
            assert wait_until(lambda: asked(5) == 0, 30)
            assert asked(20) == 0
            ask(gateway, "brain", trace="last")
            assert gateway.logged("last")["variant"] == "brain/llm-2"
