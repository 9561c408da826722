"""What llama.cpp's router answers as llmhost starts it for embeddings, with all-MiniLM-L6-v2.

Expected vectors were computed from the same weights with NumPy (benchmarks/search/minilm.py).
"""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from llmhost.inventory.reader import read_settings
from testbed import minilm
from testbed.engine import engine_archive
from tests.engines.container import Container, EngineImage, container
from tests.engines.contract import Engine, llamacpp_client

VECTORS = {
    "A cat sits on the mat.": [0.12654, -0.03285, -0.02906, 0.04441, -0.04345, 0.0321],
    "Who built the lighthouse of Velmora?": [
        0.02344,
        0.06983,
        -0.04794,
        0.03542,
        -0.00639,
        -0.07498,
    ],
}
"""The first numbers of each text's vector."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    place = tmp_path_factory.mktemp("embeddings")
    sha256 = minilm.write_gguf(place / "minilm.gguf")
    model: dict[str, Any] = {
        "name": "embedding",
        "service": "embeddings",
        "task": "embed",
        "sha256": sha256,
    }
    model |= {"source": str(place / "minilm.gguf"), "context_tokens": minilm.CONTEXT_TOKENS}
    clients = [{"name": "test", "sha256": "ab" * 32}]
    settings = read_settings(
        {"services": ["embeddings"], "models": [model], "api_clients": clients}
    )
    with container(settings, "embeddings", EngineImage(engine_archive()), place) as found:
        yield found


@pytest.fixture(scope="module")
def engine(server: Container) -> Engine:
    version = httpx.get(f"{server.url}/props?model=embedding").json()["build_info"]
    return Engine("llama.cpp router", version, "real", server.url)


@pytest.fixture(scope="module")
def api(engine: Engine) -> Iterator[httpx.Client]:
    with llamacpp_client(engine) as client:
        yield client


def test_connection_is_closed_with_notice(engine: Engine) -> None:
    """So the gateway, which sends no `Connection` either, does not reuse it."""
    address = urlsplit(engine.url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=60)
    body = json.dumps({"model": "embedding", "input": "A cat."})
    connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
    assert connection.getresponse().getheader("Connection") == "close"
    connection.close()


def test_model_is_listed_under_its_name(api: httpx.Client) -> None:
    assert [each["id"] for each in api.get("/v1/models").json()["data"]] == ["embedding"]


def test_vectors_are_those_of_the_weights(api: httpx.Client) -> None:
    body = {"model": "embedding", "input": [*VECTORS]}
    answer = api.post("/v1/embeddings", json=body).json()
    assert answer["object"] == "list" and [each["index"] for each in answer["data"]] == [0, 1]
    for found, expected in zip(answer["data"], VECTORS.values(), strict=True):
        assert len(found["embedding"]) == 384
        assert found["embedding"][: len(expected)] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/v1/embeddings", {"model": "another", "input": "text"}, 400, "invalid_request_error"),
        ("/v1/embeddings", {"model": "embedding"}, 400, "invalid_request_error"),
        ("/v1/embeddings", {"model": "embedding", "input": "word " * 400}, 500, "server_error"),
        ("/v1/rerank", {"model": "embedding", "query": "a", "documents": ["b"]}, 501, "any"),
    ],
)
def test_mistake_is_an_error(
    api: httpx.Client, path: str, body: dict[str, str], status: int, kind: str
) -> None:
    answer = api.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert kind in ("any", answer.json()["error"]["type"]), answer.text


def test_health_check_passes(server: Container, engine: Engine) -> None:
    assert server.is_healthy()
