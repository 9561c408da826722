"""What Chroma answers as llmhost starts it: the real server, from its Python package.

Expected answers were recorded from Chroma 1.5.9, the pinned version.
"""

from collections.abc import Iterator

import httpx
import pytest

from llmhost.inventory.reader import read_settings
from testbed.stores import CHROMA, store_archive
from tests.engines.container import Container, EngineImage, container
from tests.engines.contract import Engine
from tests.shapes import Json

DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"
COLLECTIONS = f"{DATABASE}/collections"
TEXTS = {"a": [1.0, 0.0], "b": [0.8, 0.6], "c": [0.0, 1.0]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    clients = [{"name": "test", "sha256": "ab" * 32}]
    settings = read_settings({"services": ["chroma"], "api_clients": clients})
    place = tmp_path_factory.mktemp("chroma")
    with container(settings, "chroma", EngineImage(store_archive()), place) as found:
        yield found


@pytest.fixture(scope="module")
def engine(server: Container) -> Engine:
    version = CHROMA.partition("==")[2].split()[0]  # it says that of its interface
    return Engine("Chroma", version, "real", server.url)


@pytest.fixture(scope="module")
def api(engine: Engine) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=engine.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def collection(api: httpx.Client) -> str:
    """The path of a collection with three texts."""
    made = api.post(COLLECTIONS, json={"name": "texts"})
    assert made.status_code == 200, made.text
    path = f"{COLLECTIONS}/{made.json()['id']}"
    body = {"ids": [*TEXTS], "embeddings": [*TEXTS.values()], "documents": [*"ABC"]}
    added = api.post(f"{path}/add", json={**body, "metadatas": [{"page": n} for n in (1, 2, 3)]})
    assert (added.status_code, added.json()) == (201, {})
    return path


def test_heartbeat_is_answered(api: httpx.Client) -> None:
    assert api.get("/api/v2/heartbeat").json()["nanosecond heartbeat"] > 0


def test_texts_are_found_by_their_distance(api: httpx.Client, collection: str) -> None:
    body: Json = {"query_embeddings": [[1.0, 0.1]], "n_results": 2}
    found = api.post(f"{collection}/query", json=body).json()
    assert (found["ids"], found["documents"]) == ([["a", "b"]], [["A", "B"]])
    assert found["distances"][0] == pytest.approx([0.01, 0.29], abs=1e-3)
    body["where"] = {"page": {"$gt": 1}}
    assert api.post(f"{collection}/query", json=body).json()["ids"] == [["b", "c"]]


def test_texts_are_counted_read_and_deleted(api: httpx.Client, collection: str) -> None:
    more = {"ids": ["d"], "embeddings": [[0.5, 0.5]], "documents": ["D"]}
    assert api.post(f"{collection}/upsert", json=more).status_code == 200
    assert api.get(f"{collection}/count").json() == 4
    assert api.post(f"{collection}/get", json={"ids": ["d"]}).json()["documents"] == ["D"]
    assert api.post(f"{collection}/delete", json={"ids": ["d"]}).status_code == 200
    assert api.get(f"{collection}/count").json() == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", f"{COLLECTIONS}/nowhere", None, 404, "NotFoundError"),
        ("POST", COLLECTIONS, {"name": "texts"}, 409, "ChromaError"),
        ("POST", COLLECTIONS, {"name": "x"}, 400, "InvalidArgumentError"),
        ("POST", "/api/v2/reset", None, 403, "ChromaError"),
        ("GET", "/api/v1/heartbeat", None, 410, "Unimplemented"),
    ],
)
def test_mistake_is_an_error_with_a_kind(
    api: httpx.Client, collection: str, method: str, path: str, body: Json, status: int, error: str
) -> None:
    answer = api.request(method, path, json=body)
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text


def test_vector_of_another_length_is_refused(api: httpx.Client, collection: str) -> None:
    body = {"query_embeddings": [[1.0, 0.0, 0.0]], "n_results": 1}
    answer = api.post(f"{collection}/query", json=body)
    assert answer.status_code == 400 and "dimension" in answer.json()["message"]


def test_data_is_in_the_volume(server: Container, collection: str) -> None:
    assert (server.root / "srv/data/chroma.sqlite3").stat().st_size > 0


def test_health_check_passes(server: Container, engine: Engine) -> None:
    assert server.is_healthy()


def test_telemetry_is_off_and_no_network_is_needed(server: Container, engine: Engine) -> None:
    assert server.environment["ANONYMIZED_TELEMETRY"] == "false"
    reach = "exec 3<>/dev/tcp/192.0.2.1/80"
    assert server.run("bash", "-c", reach).returncode != 0
