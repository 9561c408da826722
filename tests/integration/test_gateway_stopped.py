"""A service that is stopped, by an operator or for a training, under the real nginx.

New requests for it get 503 with Retry-After; open ones end; all others are answered as before. Its
mark on the disk decides, without a reload.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from llmhost.gateway.keys import digest, new_key
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway

KEY, OTHER, AWAY = new_key(), new_key(), new_key()
CHAT, EMBED = "/v1/chat/completions", "/v1/embeddings"


@dataclass(frozen=True)
class Server:
    """A gateway before llama.cpp and embeddings, which are doubles."""

    gateway: LocalGateway
    engines: dict[str, Engine]
    stopped: Path

    def post(self, path: str = CHAT, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"} | options.pop("headers", {})
        return httpx.post(self.gateway.url + path, json=options, headers=headers, timeout=20)

    def get(self, path: str, key: str = KEY) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.get(self.gateway.url + path, headers=headers, timeout=20)

    def mark(self, service: str) -> Path:
        self.stopped.mkdir(exist_ok=True)
        mark = self.stopped / service
        mark.write_text("stopped by the training house at noon\n")
        return mark


def data(place: str, engines: dict[str, Engine], **changes: Any) -> dict[str, Any]:
    port, status = free_ports(2)
    models = [
        {"name": "brain", "service": "llamacpp", "source": "https://x/m.gguf", "sha256": "1" * 64},
        {
            "name": "search",
            "service": "embeddings",
            "task": "embed",
            "source": "https://x/e.gguf",
            "sha256": "2" * 64,
        },
    ]
    return {
        "services": ["llamacpp", "embeddings"],
        "models": models,
        **{f"{name}_port": engine.port for name, engine in engines.items()},
        "stack_directory": place,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_metrics_port": None,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "gateway_stranger_burst": 1000,
        "api_clients": [
            {"name": "app", "sha256": digest(KEY)},
            {"name": "away", "sha256": digest(AWAY), "sources": ["10.0.0.0/8"]},
        ],
        **changes,
    }


@contextmanager
def serving(home: Path, **changes: Any) -> Iterator[Server]:
    # nginx's workers may not enter pytest's directories.
    place = Path(tempfile.mkdtemp(prefix="llmhost-stack-"))
    place.chmod(0o755)
    try:
        with Engine(free_ports(1)[0]) as brain, Engine(free_ports(1)[0]) as search:
            engines = {"llamacpp": brain, "embeddings": search}
            options = data(str(place), engines, **changes)
            with local_gateway(options, home) as gateway:
                yield Server(gateway, engines, place / "stopped")
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module", params=[True, False], ids=["by model", "by path"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("g") / "n", gateway_by_model=request.param) as found:
        yield found


@pytest.fixture(autouse=True)
def _running(server: Server) -> Iterator[None]:
    yield
    shutil.rmtree(server.stopped, ignore_errors=True)


def test_new_requests_get_503_and_are_answered_when_the_mark_is_gone(server: Server) -> None:
    assert server.post(model="brain").status_code == 200
    mark = server.mark("llamacpp")
    before = len(server.engines["llamacpp"].requests)
    answer = server.post(model="brain")
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "60"
    assert answer.json()["error"]["code"] == "engine_stopped"
    assert len(server.engines["llamacpp"].requests) == before
    mark.unlink()
    assert server.post(model="brain").status_code == 200


def test_other_services_are_not_concerned(server: Server) -> None:
    server.mark("llamacpp")
    own = EMBED if server.gateway.settings.gateway.by_model else f"/embeddings{EMBED}"
    assert server.post(own, model="search", input="x").status_code == 200


def test_open_stream_ends_whole(server: Server) -> None:
    asked = {"model": "brain", "stream": True, "chunks": 10, "interval": 0.1}
    headers = {"Authorization": f"Bearer {KEY}"}
    url = server.gateway.url + CHAT
    with httpx.stream("POST", url, json=asked, headers=headers, timeout=20) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        server.mark("llamacpp")
        assert server.post(model="brain").status_code == 503
        rest = list(lines)
    assert first.startswith("data:") and rest[-2:] != [] and "data: [DONE]" in rest


def test_a_client_library_waits_and_asks_again(server: Server) -> None:
    server.mark("llamacpp")
    client = openai.OpenAI(base_url=f"{server.gateway.url}/v1", api_key=KEY, max_retries=0)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="brain", messages=[])
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "60"


def test_gateway_in_front_counts_it_as_a_failure(server: Server) -> None:
    server.mark("llamacpp")
    with pytest.raises(httpx.TransportError):
        server.post(model="brain", headers={"X-LLMHost-Pool": "1"})


def test_gateway_in_front_may_ask_whether_a_service_is_stopped(server: Server) -> None:
    asked = "/_llmhost/stopped/llamacpp"
    assert (server.get(asked).status_code, server.get(asked).text) == (200, "running\n")
    mark = server.mark("llamacpp")
    assert server.get(asked).text == "stopped\n"
    assert server.get("/_llmhost/stopped/embeddings").text == "running\n"
    mark.unlink()
    assert server.get(asked).text == "running\n"


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("llamacpp", "", 401),
        ("llamacpp", OTHER, 401),
        ("llamacpp", AWAY, 403),
        ("redis", KEY, 404),
        ("", KEY, 404),
        ("llamacpp/../../../etc/passwd", KEY, 404),
    ],
    ids=["no key", "unknown key", "other scope", "other service", "no service", "other path"],
)
def test_nobody_else_is_answered(server: Server, path: str, key: str, status: int) -> None:
    assert server.get(f"/_llmhost/stopped/{path}", key).status_code == status


def test_another_model_answers_for_a_stopped_one(tmp_path: Path) -> None:
    """A model of a stopped service has its fallbacks, as one that is down."""
    models = [
        {"name": "brain", "service": "llamacpp", "source": "https://x/m.gguf", "sha256": "1" * 64},
        {"name": "small", "service": "ollama", "source": "https://x/s.gguf", "sha256": "3" * 64},
    ]
    with Engine(free_ports(1)[0]) as small:
        changes = {
            "services": ["llamacpp", "ollama"],
            "models": models,
            "ollama_port": small.port,
            "embeddings_port": None,
            "gateway_fallbacks": {"brain": ["small"]},
        }
        with serving(tmp_path / "n", **changes) as server:
            server.mark("llamacpp")
            assert server.post(model="brain").status_code == 200
            assert json.loads(small.requests[-1].body)["model"] == "brain"
            server.mark("ollama")
            answer = server.post(model="brain")
            assert answer.status_code == 503 and answer.headers["Retry-After"] == "60"
