"""Models that answer instead of others, and models that share requests, through the real nginx.

The engines are doubles.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from testbed.process import wait_until
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway

pytestmark = pytest.mark.machines

KEY, ONLY_BRAIN, BOTH, ONE_SERVICE = (new_key() for _ in range(4))
CHAT = "/v1/chat/completions"


def model(name: str, service: str, **more: object) -> dict[str, Any]:
    return {"name": name, "service": service, "source": "https://x/m", "sha256": "1" * 64, **more}


def inventory(ports: list[int], models: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    port, status = free_ports(2)
    services = list(dict.fromkeys(each["service"] for each in models))
    own = {f"{name}_port": each for name, each in zip(services, ports, strict=True)}
    return {
        "services": services,
        "models": models,
        **own,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "api_clients": [
            {"name": "app", "sha256": digest(KEY)},
            {"name": "only-brain", "sha256": digest(ONLY_BRAIN), "scope": ["brain"]},
        ],
        **more,
    }


def with_fallback(brain: int, search: int) -> dict[str, Any]:
    models = [model("brain", "llamacpp"), model("search", "ollama")]
    data = inventory([brain, search], models, gateway_fallbacks={"brain": ["search"]})
    data["api_clients"] += [
        {"name": "both", "sha256": digest(BOTH), "scope": ["brain", "search"]},
        {"name": "service", "sha256": digest(ONE_SERVICE), "scope": ["llamacpp"]},
    ]
    return data


@pytest.fixture(scope="module")
def engines() -> Iterator[list[Engine]]:
    first, second = free_ports(2)
    with Engine(first) as brain, Engine(second) as search:
        yield [brain, search]


def ask(gateway: LocalGateway, key: str = KEY, trace: str = "", **more: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} | ({"X-Request-ID": trace} if trace else {})
    body = {"model": "brain", **more}
    return httpx.post(f"{gateway.url}{CHAT}", json=body, headers=headers, timeout=60)


def counts(engines: list[Engine]) -> list[int]:
    return [len(engine.requests) for engine in engines]


def _are(engines: list[Engine], expected: list[int]) -> bool:
    return counts(engines) == expected


def gone(number: int = 1) -> int:
    """A port on which nothing listens."""
    return free_ports(8)[-number]


def test_model_itself_answers_while_it_can(engines: list[Engine], tmp_path: Path) -> None:
    data = with_fallback(engines[0].port, engines[1].port)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        before = counts(engines)
        for number in range(10):
            assert ask(gateway, trace=f"n{number}").status_code == 200
        assert counts(engines) == [before[0] + 10, before[1]]
        assert gateway.logged("n9")["variant"] == "brain/llamacpp"


def test_full_model_is_answered_for_and_then_waited_for(
    engines: list[Engine], tmp_path: Path
) -> None:
    """One request each is in progress, so that the third waits for the model that was asked for."""
    data = with_fallback(engines[0].port, engines[1].port)
    with local_gateway(data, tmp_path / "nginx") as gateway, ThreadPoolExecutor(3) as pool:
        before = counts(engines)
        slow: dict[str, Any] = {"stream": True, "chunks": 3, "interval": 1}
        answers = []
        for added in ([1, 0], [1, 1], [2, 1]):
            answers.append(pool.submit(ask, gateway, BOTH, **slow))
            expected = [old + new for old, new in zip(before, added, strict=True)]
            assert wait_until(partial(_are, engines, expected), 5), added
        assert [answer.result().status_code for answer in answers] == [200] * 3
        assert all("[DONE]" in answer.result().text for answer in answers)


def test_other_model_answers_for_one_that_is_down(engines: list[Engine], tmp_path: Path) -> None:
    data = with_fallback(gone(), engines[1].port)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        before = counts(engines)
        assert ask(gateway, trace="down").status_code == 200
        # From the disk, once more; the field is not changed.
        large = "x" * 20_000_000
        assert ask(gateway, prompt=large).status_code == 200
        assert ask(gateway, BOTH).status_code == 200
        assert counts(engines) == [before[0], before[1] + 3]
        assert engines[1].requests[-2].options == {"model": "brain", "prompt": large}
        assert gateway.logged("down")["variant"] == "search/ollama"


@pytest.mark.parametrize("key", [ONLY_BRAIN, ONE_SERVICE], ids=["model", "service"])
def test_model_beyond_a_scope_never_answers(
    engines: list[Engine], tmp_path: Path, key: str
) -> None:
    """By a model, and by a service."""
    with local_gateway(with_fallback(gone(), engines[1].port), tmp_path / "nginx") as gateway:
        before = counts(engines)
        answer = ask(gateway, key, trace="scoped")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_silent")
        assert ask(gateway, key, prompt="x" * 20_000_000).status_code == 502
        assert counts(engines) == before
        assert gateway.logged("scoped")["variant"] == "brain/llamacpp"


def test_scoped_client_waits_for_a_full_model(engines: list[Engine], tmp_path: Path) -> None:
    data = with_fallback(engines[0].port, engines[1].port)
    with local_gateway(data, tmp_path / "nginx") as gateway, ThreadPoolExecutor(2) as pool:
        before = counts(engines)
        slow: dict[str, Any] = {"stream": True, "chunks": 3, "interval": 1}
        answers = []
        for added in ([1, 0], [2, 0]):
            answers.append(pool.submit(ask, gateway, ONLY_BRAIN, **slow))
            expected = [old + new for old, new in zip(before, added, strict=True)]
            assert wait_until(partial(_are, engines, expected), 5), added
        assert [answer.result().status_code for answer in answers] == [200] * 2


def test_chain_goes_on_behind_a_model_beyond_the_scope(
    engines: list[Engine], tmp_path: Path
) -> None:
    files = [{"path": "model.safetensors", "sha256": "1" * 64}]
    last = {"name": "last", "service": "vllm", "source": "hf:a/b", "revision": "1" * 40}
    models = [model("brain", "llamacpp"), model("search", "ollama"), {**last, "files": files}]
    data = inventory(
        [gone(), engines[0].port, engines[1].port],
        models,
        gateway_fallbacks={"brain": ["search", "last"]},
        api_clients=[{"name": "a", "sha256": digest(KEY), "scope": ["brain", "last"]}],
    )
    with local_gateway(data, tmp_path / "nginx") as gateway:
        before = counts(engines)
        assert ask(gateway, trace="c").status_code == 200
        assert gateway.logged("c")["variant"] == "last/vllm"
        assert counts(engines) == [before[0], before[1] + 1]


def test_both_down_is_said(tmp_path: Path) -> None:
    with local_gateway(with_fallback(gone(), gone(2)), tmp_path / "nginx") as gateway:
        answer = ask(gateway)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_silent")


class Loading(BaseHTTPRequestHandler):
    """An engine that is not ready, or that refuses a request: the status is in its path's port."""

    status = 503

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"its own words")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(status: int) -> Iterator[int]:
    handler = type("Handler", (Loading,), {"status": status})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.mark.parametrize(
    ("status", "expected"), [(503, 200), (429, 200), (504, 200), (400, 400), (404, 404), (500, 500)]
)
def test_only_an_engine_that_cannot_answer_now_is_answered_for(
    engines: list[Engine], tmp_path: Path, status: int, expected: int
) -> None:
    with (
        answering(status) as port,
        local_gateway(with_fallback(port, engines[1].port), tmp_path / "nginx") as gateway,
    ):
        answer = ask(gateway)
        assert answer.status_code == expected
        assert (answer.text == "its own words") == (expected != 200)


def test_order_of_fallbacks_is_followed(engines: list[Engine], tmp_path: Path) -> None:
    files = [{"path": "model.safetensors", "sha256": "1" * 64}]
    last = {"name": "last", "service": "vllm", "source": "hf:a/b", "revision": "1" * 40}
    models = [model("brain", "llamacpp"), model("search", "ollama"), {**last, "files": files}]
    fallbacks = {"brain": ["search"], "search": ["last"]}
    for ports, answers in (
        ([gone(), engines[0].port, engines[1].port], "search/ollama"),
        ([gone(), gone(2), engines[1].port], "last/vllm"),
    ):
        data = inventory(ports, models, gateway_fallbacks=fallbacks)
        with local_gateway(data, tmp_path / answers.replace("/", "-")) as gateway:
            assert ask(gateway, trace="t").status_code == 200
            assert gateway.logged("t")["variant"] == answers


def test_requests_are_shared_by_weight_and_told_apart(
    engines: list[Engine], tmp_path: Path
) -> None:
    models = [model("brain", "llamacpp"), model("brain", "ollama")]
    shares = {"brain": {"llamacpp": 90, "ollama": 10}}
    data = inventory([each.port for each in engines], models, gateway_shares=shares)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        before = counts(engines)
        for number in range(100):
            assert ask(gateway, trace=f"s{number}").status_code == 200
        after = counts(engines)
        assert [new - old for new, old in zip(after, before, strict=True)] == [90, 10]
        variants = Counter(gateway.logged(f"s{number}")["variant"] for number in range(100))
        assert variants == {"brain/llamacpp": 90, "brain/ollama": 10}
        listed = httpx.get(
            f"{gateway.url}/v1/models", headers={"Authorization": f"Bearer {KEY}"}
        ).json()["data"]
        assert [each["id"] for each in listed] == ["brain"]


def test_place_that_is_down_is_replaced_by_another(engines: list[Engine], tmp_path: Path) -> None:
    """Nothing has been sent to it."""
    models = [model("brain", "llamacpp"), model("brain", "ollama")]
    shares = {"brain": {"llamacpp": 1, "ollama": 1}}
    data = inventory([gone(), engines[1].port], models, gateway_shares=shares)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        before = counts(engines)
        for number in range(10):
            assert ask(gateway, trace=f"d{number}").status_code == 200
        assert counts(engines) == [before[0], before[1] + 10]
        assert {gateway.logged(f"d{number}")["variant"] for number in range(10)} == {"brain/ollama"}


def test_generation_is_not_repeated_at_another_place(engines: list[Engine], tmp_path: Path) -> None:
    models = [model("brain", "llamacpp"), model("brain", "ollama")]
    shares = {"brain": {"llamacpp": 1, "ollama": 1}}
    data = inventory([each.port for each in engines], models, gateway_shares=shares)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        before = sum(counts(engines))
        assert ask(gateway, hang_up=True).status_code == 502
        assert sum(counts(engines)) == before + 1


def test_share_of_nothing_gets_nothing(engines: list[Engine], tmp_path: Path) -> None:
    models = [model("brain", "llamacpp"), model("brain", "ollama")]
    shares = {"brain": {"llamacpp": 1, "ollama": 0}}
    data = inventory([each.port for each in engines], models, gateway_shares=shares)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        before = counts(engines)
        for _ in range(20):
            assert ask(gateway).status_code == 200
        assert counts(engines) == [before[0] + 20, before[1]]


def test_share_of_nothing_is_no_answer_where_only_it_could(
    engines: list[Engine], tmp_path: Path
) -> None:
    """Ollama does not rerank, and llama.cpp is to get nothing."""
    models = [model("brain", "llamacpp"), model("brain", "ollama")]
    shares = {"brain": {"llamacpp": 0, "ollama": 1}}
    data = inventory([each.port for each in engines], models, gateway_shares=shares)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        before, headers = counts(engines), {"Authorization": f"Bearer {KEY}"}
        body = {"model": "brain", "query": "x", "documents": ["y"]}
        answer = httpx.post(f"{gateway.url}/v1/rerank", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_lacks_route")
        assert counts(engines) == before


def test_only_service_gets_requests_without_a_model(engines: list[Engine], tmp_path: Path) -> None:
    clients = [
        {"name": "app", "sha256": digest(KEY)},
        {"name": "only-brain", "sha256": digest(ONLY_BRAIN), "scope": ["brain"]},
    ]
    data = inventory([engines[0].port], [model("brain", "llamacpp")], api_clients=clients)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        for key, status in ((KEY, 200), (ONLY_BRAIN, 400)):
            headers = {"Authorization": f"Bearer {key}"}
            answer = httpx.post(f"{gateway.url}{CHAT}", json={}, headers=headers)
            assert answer.status_code == status
        assert ask(gateway, ONLY_BRAIN).status_code == 200
