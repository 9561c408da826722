"""The search API on Qdrant's local mode, with a Redis in this process and an embedding double."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from qdrant_client import AsyncQdrantClient

from search_api.app import create_app
from search_api.cache import Cache
from search_api.embeddings import Embeddings
from search_api.errors import ServiceError
from search_api.fusion import fuse
from search_api.keywords import document_vector, query_vector, words
from search_api.search import Search
from search_api.store import Document, Store
from tests.doubles import embeddings as double
from tests.doubles import qdrant as qdrant_double

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "cat", "text": "The cat sleeps on the warm sofa", "metadata": {"lang": "en"}},
    {"id": "dog", "text": "A dog barks at the postman"},
    {"id": "gpu", "text": "The H100 GPU has 80 GB of memory and NVLink"},
    {"id": "ko", "text": "서울에서 가장 좋은 음식점을 찾습니다"},
]


@dataclass
class Site:
    """The service, and the services that it uses, which a test can break."""

    redis: FakeServer = field(default_factory=FakeServer)
    asked: list[list[str]] = field(default_factory=list)
    embeddings_status: int = 200

    def embed(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body["input"])
        return httpx.Response(self.embeddings_status, json=double.answer(body))

    def search(self, qdrant: AsyncQdrantClient, collection: str = "documents") -> Search:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.embed))
        return Search(
            Store(qdrant, collection),
            Embeddings(http, "http://embeddings/v1", "double"),
            Cache(FakeAsyncRedis(server=self.redis, decode_responses=True), collection, 60),
            candidates=50,
        )


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture(params=["local mode", "double"])
def qdrant(request: pytest.FixtureRequest) -> Iterator[AsyncQdrantClient]:
    """The client's own local mode, and the real client before the double that stands in for the
    server on test machines: both have to be of one mind."""
    if request.param == "local mode":
        yield AsyncQdrantClient(":memory:")
        return
    with qdrant_double.serve(0) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield AsyncQdrantClient(url, check_compatibility=False)
        server.shutdown()


@pytest.fixture
def client(site: Site, qdrant: AsyncQdrantClient) -> Iterator[TestClient]:
    app = create_app(site.search(qdrant))
    with TestClient(app, raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 204:
            pass
        assert client.put("/v1/documents", json={"documents": DOCUMENTS}).status_code == 204
        yield client


def _found(client: TestClient, query: str, **options: Any) -> list[str]:
    answer = client.post("/v1/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    return [result["id"] for result in answer.json()["results"]]


def _metric(client: TestClient, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [each for family in families for each in family.samples if each.name == name]
    return sum(each.value for each in samples if labels.items() <= each.labels.items())


@pytest.mark.parametrize(
    ("query", "best"),
    [("sleeping cat sofa", "cat"), ("h100 nvlink", "gpu"), ("서울 음식점", "ko"), ("DOG?", "dog")],
)
def test_best_document_comes_first(client: TestClient, query: str, best: str) -> None:
    assert _found(client, query)[0] == best


def test_result_is_the_document_with_its_score(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"query": "warm cat sofa", "limit": 1}).json()
    (result,) = answer["results"]
    # First in both rankings: twice 1 / (60 + 1).
    assert result.pop("score") == pytest.approx(2 / 61)
    assert result == {"id": "cat", "text": DOCUMENTS[0]["text"], "metadata": {"lang": "en"}}


def test_limit_and_threshold_shorten_the_answer(client: TestClient) -> None:
    assert len(_found(client, "the cat")) == 4
    assert len(_found(client, "the cat", limit=2)) == 2
    # Whatever only one of the rankings has can not reach more than 1 / 61.
    assert _found(client, "sofa", threshold=1.5 / 61) == ["cat"]


def test_query_without_a_word_is_answered_by_meaning_alone(client: TestClient) -> None:
    assert len(_found(client, "?!")) == 4


def test_document_is_replaced_and_removed(client: TestClient) -> None:
    changed = {"documents": [{"id": "dog", "text": "An aardvark digs"}]}
    assert client.put("/v1/documents", json=changed).status_code == 204
    assert _found(client, "aardvark", limit=1) == ["dog"]
    removed = client.post("/v1/documents/delete", json={"ids": ["dog", "nobody"]})
    assert removed.status_code == 204
    assert "dog" not in _found(client, "aardvark")


def test_same_question_is_answered_from_the_cache(client: TestClient, site: Site) -> None:
    body = {"query": "cat"}
    first, second = client.post("/v1/search", json=body), client.post("/v1/search", json=body)
    assert first.headers["X-Search-Cache"] == "miss" and second.headers["X-Search-Cache"] == "hit"
    assert first.json() == second.json()
    assert site.asked.count(["cat"]) == 1
    assert client.post("/v1/search", json=body | {"limit": 1}).headers["X-Search-Cache"] == "miss"


def test_changed_documents_end_the_cache(client: TestClient) -> None:
    assert _found(client, "zebra")[0] != "zebra"
    client.put("/v1/documents", json={"documents": [{"id": "zebra", "text": "zebra"}]})
    assert _found(client, "zebra")[0] == "zebra"
    client.post("/v1/documents/delete", json={"ids": ["zebra"]})
    assert "zebra" not in _found(client, "zebra")


def test_search_goes_on_without_redis(client: TestClient, site: Site) -> None:
    site.redis.connected = False
    assert _found(client, "cat")[0] == "cat"
    assert client.put("/v1/documents", json={"documents": DOCUMENTS}).status_code == 204


def test_missing_embeddings_are_told_by_type(client: TestClient, site: Site) -> None:
    site.embeddings_status = 500
    answer = client.post("/v1/search", json={"query": "cat"})
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "embeddings_unavailable"


def test_missing_store_is_told_by_type(site: Site) -> None:
    nowhere = AsyncQdrantClient("http://127.0.0.1:9", check_compatibility=False)
    search = site.search(nowhere)
    client = TestClient(create_app(search))
    search.ready = True
    answer = client.post("/v1/search", json={"query": "cat"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "store_unavailable")
    search.ready = False
    assert client.get("/health").status_code == 503


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "x", "limit": 0}, "limit"),
        ({"query": "x", "limit": 101}, "limit"),
        ({"query": "x", "threshold": 2}, "threshold"),
        ({"query": "x", "topk": 3}, "topk"),
        ([], "body"),
    ],
)
def test_invalid_question_is_told_by_its_place(client: TestClient, body: Any, told: str) -> None:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request" and told in error["message"]


@pytest.mark.parametrize(
    "document", [{"id": "", "text": "x"}, {"id": "x", "text": ""}, {"id": "x", "text": 1}]
)
def test_invalid_document_is_refused(client: TestClient, document: dict[str, Any]) -> None:
    assert client.put("/v1/documents", json={"documents": [document]}).status_code == 400


def test_four_metrics_are_offered(client: TestClient, site: Site) -> None:
    before = _metric(client, "search_requests_total", outcome="ok", cache="miss")
    seconds = _metric(client, "search_request_duration_seconds_count")
    _found(client, "cat")
    client.post("/v1/search", json={})
    assert _metric(client, "search_requests_total", outcome="ok", cache="miss") == before + 1
    assert _metric(client, "search_request_duration_seconds_count") == seconds + 2
    assert _metric(client, "search_requests_total", outcome="refused") >= 1
    assert _metric(client, "model_load_duration_seconds", model="double") > 0
    assert "# TYPE gpu_memory_usage_bytes gauge" in client.get("/metrics").text


def test_interface_describes_itself_and_its_errors(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    answers = described["paths"]["/v1/search"]["post"]["responses"]
    assert {"200", "400", "503"} <= set(answers)
    reference = answers["503"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.endswith("/ErrorBody")


def test_service_waits_for_the_others(site: Site, qdrant: AsyncQdrantClient) -> None:
    site.embeddings_status = 503
    search = site.search(qdrant)

    async def start_late() -> None:
        preparation = asyncio.create_task(search.prepare(0.01))
        await asyncio.sleep(0.05)
        assert not search.ready
        site.embeddings_status = 200
        await asyncio.wait_for(preparation, 5)

    asyncio.run(start_late())
    assert search.ready


def test_collection_of_another_model_is_refused(qdrant: AsyncQdrantClient) -> None:
    async def prepare() -> None:
        await Store(qdrant, "documents").prepare(3)
        await Store(qdrant, "documents").prepare(3)
        await Store(qdrant, "documents").prepare(4)

    with pytest.raises(ServiceError, match=r"vectors of 3 numbers .* makes 4"):
        asyncio.run(prepare())


def test_many_texts_are_embedded_in_batches_and_in_order(site: Site) -> None:
    http = httpx.AsyncClient(transport=httpx.MockTransport(site.embed))
    texts = [f"text {number}" for number in range(70)]
    vectors = asyncio.run(Embeddings(http, "http://e/v1", "double").of(texts))
    assert vectors == [double.embed(text) for text in texts]
    assert [len(each) for each in site.asked] == [32, 32, 6]


def test_rrf_sums_reciprocal_ranks() -> None:
    fused = fuse(["a", "b", "c"], ["c", "a"])
    assert [name for name, _ in fused] == ["a", "c", "b"]
    assert dict(fused) == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62})


def test_words_of_all_scripts_are_told_apart() -> None:
    assert words("Straße, GPU-Server №5!") == ["strasse", "gpu", "server", "no5"]
    assert words("한국어로") == ["한국", "국어", "어로"]
    assert words("東京tower") == ["tower", "東京"]


def test_bm25_weights_are_those_of_the_formula() -> None:
    weights = document_vector("gpu gpu memory")
    (gpu,) = query_vector("gpu")
    norm = 1.2 * (1 - 0.75 + 0.75 * 3 / 256)
    assert weights[gpu] == pytest.approx(2 * 2.2 / (2 + norm))


def test_rare_word_counts_more_than_a_common_one(site: Site) -> None:
    """How rare a word is comes from Qdrant; here it is asked for keywords alone."""
    qdrant = AsyncQdrantClient(":memory:")

    async def ask() -> list[str]:
        search = site.search(qdrant)
        await search.prepare()
        store = Store(qdrant, "documents")
        texts = ["common word", "common thing", "common rare"]
        documents = [Document(text, text, {}) for text in texts]
        await store.put(documents, [double.embed(text) for text in texts])
        _, by_words = await store.rankings("common rare", double.embed("x"), 3)
        found = await store.documents(by_words)
        return [found[point].id for point in by_words]

    assert asyncio.run(ask())[0] == "common rare"
