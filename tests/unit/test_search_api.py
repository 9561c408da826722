"""The search API on Qdrant's core, with a Redis in this process and an embedding double."""

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from qdrant_client import AsyncQdrantClient

from search_api.app import create_app
from search_api.cache import Cache
from search_api.client import Client
from search_api.collections import Collections
from search_api.config import CollectionDefaults, Ranking
from search_api.embeddings import EmbeddingModel, Embeddings
from search_api.filters import qdrant_filter
from search_api.passages import split
from search_api.qdrant import Queries
from search_api.reembed import Reembedding
from search_api.reranker import Reranker
from search_api.search import Search
from search_api.store import Store
from tests.doubles import embeddings as double
from tests.doubles.qdrant import serve

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "cat", "text": "The cat sleeps on the warm sofa", "metadata": {"lang": "en"}},
    {"id": "dog", "text": "A dog barks at the postman"},
    {"id": "gpu", "text": "The H100 GPU has 80 GB of memory and NVLink"},
    {"id": "ko", "text": "서울에서 가장 좋은 음식점을 찾습니다"},
]


@dataclass
class Site:
    """The service, and the services that it uses, which a test can break."""

    qdrant_url: str
    embeddings_url: str = ""
    redis: FakeServer = field(default_factory=FakeServer)
    asked: list[list[str]] = field(default_factory=list)
    reranked: list[list[str]] = field(default_factory=list)
    embeddings_status: int = 200
    fails_after: int | None = None
    """Requests that the embedding service still answers."""
    reads: int = 10**9
    """Characters of a text that the models read."""
    rerank_seconds: float = 0.0
    defaults: CollectionDefaults = field(default_factory=CollectionDefaults)
    rerank_budget: float = 0.0
    waiting: bool = False
    """Whether a document has been asked for that may not pass."""
    documents_may_pass: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.documents_may_pass.set()

    def embed(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path.endswith("/rerank"):
            time.sleep(self.rerank_seconds)
            self.reranked.append(body["documents"])
            if not body["documents"] or max(map(len, body["documents"])) > self.reads:
                return 400, {"error": {"code": 400, "message": "invalid"}}
            return self.embeddings_status, _reranked(body)
        if DOCUMENTS[0]["text"] in body["input"]:
            self.waiting = True
            assert self.documents_may_pass.wait(60)
        self.asked.append(body["input"])
        if self.fails_after is not None:
            self.fails_after -= 1
            if self.fails_after < 0:
                return 500, {}
        if max(map(len, body["input"])) > self.reads:
            said = "input (513 tokens) is too large to process. increase the physical batch size"
            return 500, {"error": {"code": 500, "message": said, "type": "server_error"}}
        return self.embeddings_status, double.answer(body)

    def search(self, model: EmbeddingModel | None = None) -> Search:
        client = Client(5)
        qdrant = AsyncQdrantClient(
            self.qdrant_url, check_compatibility=False, cloud_inference=True, timeout=5
        )
        collections = Collections(qdrant)
        url = self.embeddings_url
        return Search(
            Store(qdrant, Queries(client, self.qdrant_url), collections),
            collections,
            Embeddings(client, url, model or EmbeddingModel("double")),
            Cache(FakeAsyncRedis(server=self.redis), 60),
            default="documents",
            ranking=Ranking(candidates=50),
            defaults=self.defaults,
            reranker=Reranker(client, url, "r", self.rerank_budget) if self.rerank_budget else None,
            rerank_top=3,
        )


def _reranked(body: dict[str, Any]) -> dict[str, Any]:
    """The shorter, the better."""
    texts = body["documents"]
    scores = [{"index": n, "relevance_score": -len(text)} for n, text in enumerate(texts)]
    return {"results": scores[::-1]}


@contextmanager
def embeddings_of(site: Site) -> Iterator[str]:
    """The embedding service of a site; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits 40 ms

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = site.embed(self.path, body)
            data = json.dumps(answer).encode()
            with suppress(ConnectionError):  # a late reranker
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serve(0, tmp_path / "qdrant") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = Site(f"http://127.0.0.1:{server.server_port}")
        with embeddings_of(site) as site.embeddings_url:
            yield site
        server.shutdown()


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    with started(site.search()) as client:
        assert client.put("/v1/documents", json={"documents": DOCUMENTS}).status_code == 204
        yield client


@contextmanager
def started(search: Search) -> Iterator[TestClient]:
    """The service, ready."""
    with TestClient(create_app(search), raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 200:
            time.sleep(0.01)
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
    # First in both rankings.
    assert result.pop("score") == pytest.approx(1.0)
    place = {"passage": 0, "passages": 1, "start": 0}
    assert result == {**DOCUMENTS[0], **place}
    assert (answer["reranked"], answer["next_offset"]) == (False, 1)


def test_limit_and_threshold_shorten_the_answer(client: TestClient) -> None:
    assert len(_found(client, "the cat")) == 4
    assert len(_found(client, "the cat", limit=2)) == 2
    # What only one of the rankings has cannot reach more than one half.
    assert _found(client, "sofa", threshold=0.6) == ["cat"]


@pytest.mark.parametrize("mode", ["hybrid", "meaning", "words"])
def test_threshold_means_the_same_in_every_mode(client: TestClient, mode: str) -> None:
    body = {"query": "warm cat sofa", "mode": mode}
    best = client.post("/v1/search", json=body).json()["results"][0]
    assert (best["id"], best["score"]) == ("cat", pytest.approx(1.0))
    assert _found(client, "warm cat sofa", mode=mode, threshold=0.999) == ["cat"]


def test_expanded_query_finds_what_shares_words_with_the_best_result(client: TestClient) -> None:
    texts = {"zebra": "Zebras graze in the savanna", "grass": "Savanna grass grows tall"}
    documents = [{"id": name, "text": text} for name, text in texts.items()]
    client.put("/v1/documents", json={"documents": documents})
    assert _found(client, "zebra", mode="words") == ["zebra"]
    assert _found(client, "zebra", mode="words", expand=True) == ["zebra", "grass"]


def test_expansion_by_meaning_keeps_the_best_and_its_score(client: TestClient) -> None:
    body = {"query": "warm cat sofa", "mode": "meaning", "expand": True}
    best = client.post("/v1/search", json=body).json()["results"][0]
    assert (best["id"], best["score"]) == ("cat", pytest.approx(1.0))


def test_expansion_of_a_query_without_results_finds_nothing(client: TestClient) -> None:
    assert _found(client, "unheard", mode="words", expand=True) == []


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
    site.qdrant_url = "http://127.0.0.1:9"
    search = site.search()
    client = TestClient(create_app(search))
    search.ready = True
    answer = client.post("/v1/search", json={"query": "cat"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "store_unavailable")
    assert answer.headers["Retry-After"] == "1"
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


def test_metrics_are_offered(client: TestClient, site: Site) -> None:
    before = _metric(client, "search_requests_total", outcome="ok", cache="miss")
    seconds = _metric(client, "search_request_duration_seconds_count")
    _found(client, "cat")
    client.post("/v1/search", json={})
    assert _metric(client, "search_requests_total", outcome="ok", cache="miss") == before + 1
    assert _metric(client, "search_request_duration_seconds_count") == seconds + 2
    assert _metric(client, "search_requests_total", outcome="refused") >= 1
    assert _metric(client, "model_load_duration_seconds", model="double") > 0
    for stage in ("cache", "embed", "store"):
        assert _metric(client, "search_stage_duration_seconds_count", stage=stage) > 0
    assert "# TYPE gpu_memory_usage_bytes gauge" in client.get("/metrics").text


def test_interface_describes_itself_and_its_errors(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    answers = described["paths"]["/v1/search"]["post"]["responses"]
    assert {"200", "400", "503"} <= set(answers)
    reference = answers["503"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.endswith("/ErrorBody")


def test_every_request_has_an_example_that_works(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    # One after the other: a collection that is deleted has to be there.
    order = {"post": 0, "put": 1, "get": 2, "delete": 3}
    operations = [(method, path) for path, each in described["paths"].items() for method in each]
    for method, path in sorted(operations, key=lambda each: (order[each[0]], len(each[1]))):
        operation, url = described["paths"][path][method], path
        content, headers = None, {}
        for kind, body in operation.get("requestBody", {}).get("content", {}).items():
            schema = body["schema"]
            known = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
            content = body.get("example") or json.dumps(known["examples"][0])
            headers = {"Content-Type": kind}
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                (example,) = parameter["schema"].get("examples") or parameter["examples"]
                url = url.replace(f"{{{parameter['name']}}}", example)
        while True:
            answer = client.request(method, url, content=content, headers=headers)
            if answer.status_code != 409:  # it is being re-embedded
                break
        assert answer.status_code < 300, f"{method} {url}: {answer.text}"


def test_service_waits_for_the_others(site: Site) -> None:
    site.embeddings_status = 503
    search = site.search()

    async def start_late() -> None:
        preparation = asyncio.create_task(search.prepare(pause_seconds=0.01))
        await asyncio.sleep(0.05)
        assert not search.ready
        site.embeddings_status = 200
        await asyncio.wait_for(preparation, 5)

    asyncio.run(start_late())
    assert search.ready


def test_many_texts_are_embedded_in_batches_and_in_order(site: Site) -> None:
    texts = [f"text {number}" for number in range(70)]
    vectors = asyncio.run(site.search().embeddings.of(texts))
    assert vectors == [double.embed(text) for text in texts]
    assert [len(each) for each in site.asked] == [32, 32, 6]


def test_queries_that_wait_share_a_request(site: Site) -> None:
    embeddings = site.search().embeddings

    async def ask() -> list[list[float]]:
        return await asyncio.gather(*(embeddings.of_query(f"q{n % 10}") for n in range(40)))

    vectors = asyncio.run(ask())
    assert vectors == [double.embed(f"q{n % 10}") for n in range(40)]
    # Two go at once, and may arrive in any order; the others together, each text once.
    assert sorted(map(len, site.asked))[:2] == [1, 1]
    assert len(site.asked) <= 4 and sum(map(len, site.asked)) <= 12


def test_query_and_document_get_the_prefixes_of_the_model(site: Site) -> None:
    embeddings = site.search(EmbeddingModel("double", "query: ", "passage: ")).embeddings

    async def ask() -> None:
        await embeddings.of_query("x")
        await embeddings.of(["y"])

    asyncio.run(ask())
    assert site.asked == [["query: x"], ["passage: y"]]


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ({"lang": "en"}, {"cat"}),
        ({"year": {"gte": 2020, "lt": 2024}}, {"dog"}),
        ({"lang": ["en", "de"]}, {"cat", "dog"}),
        ({"path": {"prefix": "animals/"}}, {"cat", "dog"}),
        ({"owner.name": "Kim"}, {"dog"}),
        ({"lang": "de", "year": 2019}, set()),
    ],
)
def test_filter_finds_by_metadata(site: Site, filter_: Any, found: set[str]) -> None:
    fields = {"lang": "keyword", "year": "integer", "path": "path"}
    site.defaults = CollectionDefaults(fields=fields)
    notes = {
        "cat": {"lang": "en", "year": 2019, "path": "animals/cats/1"},
        "dog": {"lang": "de", "year": 2023, "path": "animals/dogs/1", "owner": {"name": "Kim"}},
    }
    documents = [{**each, "metadata": notes.get(each["id"], {})} for each in DOCUMENTS]
    with started(site.search()) as client:
        client.put("/v1/documents", json={"documents": documents})
        assert set(_found(client, "the cat", filter=filter_)) == found
        assert set(_found(client, "the cat dog", filter=filter_, mode="words")) <= found
        assert client.get("/v1/collections/documents").json()["fields"] == fields


def test_condition_on_a_boolean_is_no_condition_on_a_number() -> None:
    filter_ = qdrant_filter({"tame": True, "year": [1, "1"]})
    assert filter_ and filter_["must"] == [
        {"key": "metadata.tame", "match": {"value": True}},
        {
            "should": [
                {"key": "metadata.year", "match": {"any": ["1"]}},
                {"key": "metadata.year", "match": {"any": [1]}},
            ]
        },
    ]


@pytest.mark.parametrize(
    "filter_",
    [
        {"a b": 1},
        {"x": {}},
        {"x": []},
        {"x": {"like": 1}},
        {"x": None},
        {"x": 1.5},
        {"x": {"any": None}},
        {"x": {"gte": None}},
        {"x": {"prefix": None}},
        {"x": {"gte": None, "lt": None}},
        {"x": {"gte": True}},
        {"x": {"gte": "2020"}},
    ],
)
def test_invalid_filter_is_refused(client: TestClient, filter_: Any) -> None:
    answer = client.post("/v1/search", json={"query": "x", "filter": filter_})
    assert answer.status_code == 400 and "filter" in answer.json()["error"]["message"]


def test_optional_limits_of_a_filter_may_be_null(client: TestClient) -> None:
    filter_ = {"year": {"gte": 1, "lt": None}}
    answer = client.post("/v1/search", json={"query": "x", "filter": filter_})
    assert answer.status_code == 200


def test_no_page_repeats_or_misses_a_document(site: Site) -> None:
    chance = random.Random(1)
    words = [f"word{number}" for number in range(40)]
    documents = [
        {"id": str(number), "text": " ".join(chance.choices(words, k=8))} for number in range(220)
    ]
    with started(site.search()) as client:
        client.put("/v1/documents", json={"documents": documents})
        pages = list[str]()
        for offset in range(0, 220, 20):
            pages += _found(client, "word1 word2 word3", limit=20, offset=offset)
    assert sorted(pages) == sorted(each["id"] for each in documents)


def test_no_two_ranks_have_the_same_score() -> None:
    """Or documents of equal scores could change places between pages."""
    ranking, ranks = Ranking(), range(1, 2000)
    shares = [
        1 / (ranking.k + rank / weight)
        for weight in (ranking.meaning_weight, ranking.words_weight)
        for rank in ranks
    ]
    assert len({*numpy.array(shares, numpy.float32)}) == len(shares)


def test_few_documents_of_many_passages_are_all_found(site: Site) -> None:
    site.defaults = CollectionDefaults(passage_characters=60, passage_overlap=10)
    text = "The zebra has stripes and runs far away. " * 40
    documents = [{"id": str(number), "text": text} for number in range(3)]
    with started(site.search()) as client:
        client.put("/v1/documents", json={"documents": documents})
        assert sorted(_found(client, "zebra", limit=10)) == ["0", "1", "2"]


def test_pages_follow_each_other_without_gaps(client: TestClient) -> None:
    pages, offset = list[str](), 0
    while offset is not None:
        body = {"query": "the cat", "limit": 1, "offset": offset}
        answer = client.post("/v1/search", json=body).json()
        pages += [result["id"] for result in answer["results"]]
        offset = answer["next_offset"]
    assert pages == _found(client, "the cat") and len(pages) == 4


def test_words_of_the_query_are_highlighted(client: TestClient) -> None:
    body = {"query": "sleeping cats 음식점", "highlight": True}
    results = client.post("/v1/search", json=body).json()["results"]
    shown = {r["id"]: [r["text"][a:b] for a, b in r["highlights"]] for r in results}
    assert shown["cat"] == ["cat", "sleeps"] and shown["ko"] == ["음식점"] and shown["gpu"] == []


def test_stop_words_are_not_highlighted(client: TestClient) -> None:
    texts = "Does the CAT sleep, and why is the dog's bark so loud?"
    body = {"query": f"{texts} {' '.join(map(str, range(100)))} gpu", "highlight": True}
    results = client.post("/v1/search", json=body).json()["results"]
    shown = {r["id"]: [r["text"][a:b] for a, b in r["highlights"]] for r in results}
    marked = {"cat": ["cat", "sleeps"], "dog": ["dog", "barks"], "gpu": ["GPU", "80"]}
    assert {name: shown[name] for name in marked} == marked
    only = client.post("/v1/search", json={"query": "is the a", "highlight": True}).json()
    assert [each["highlights"] for each in only["results"]] == [[]] * 4


def test_stems_and_stop_words_are_those_of_the_language(client: TestClient) -> None:
    assert _found(client, "barking", mode="words") == ["dog"]
    assert _found(client, "the has of", mode="words") == []
    client.post("/v1/collections", json={"name": "german", "language": "german"})
    documents = [{"id": "h", "text": "Die Häuser sind alt"}]
    client.put("/v1/documents", json={"collection": "german", "documents": documents})
    assert _found(client, "Hauses", mode="words", collection="german") == ["h"]
    assert _found(client, "die sind", mode="words", collection="german") == []


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("서울에서 가장 좋은 음식점을 찾습니다", "음식점"),
        ("東京タワーに行きました", "東京"),
        ("我喜欢机器学习和搜索引擎", "学习"),
    ],
)
@pytest.mark.parametrize("language", ["none", "english"])
def test_scripts_without_spaces_are_found_by_words(
    client: TestClient, text: str, query: str, language: str
) -> None:
    client.post("/v1/collections", json={"name": "cjk", "language": language})
    documents = [{"id": "it", "text": text}, {"id": "other", "text": "완전히 다른 글"}]
    client.put("/v1/documents", json={"collection": "cjk", "documents": documents})
    assert _found(client, query, mode="words", collection="cjk") == ["it"]


def test_mean_length_is_that_of_the_texts_in_words(client: TestClient) -> None:
    """Without stop words: cat sleep warm sofa, dog bark postman, h100 gpu 80 gb memori nvlink,
    ten pairs of letters and two."""
    mean = client.get("/v1/collections/documents").json()["mean_words"]
    assert mean == pytest.approx((4 + 3 + 6 + 12) / 4, rel=0.05)


def test_documents_behind_many_passages_of_another_are_found(site: Site) -> None:
    site.defaults = CollectionDefaults(passage_characters=60, passage_overlap=10)
    long = {"id": "long", "text": "The zebra has stripes and the zebra runs far away. " * 150}
    short = [{"id": str(n), "text": f"A zebra in the cage number {n}"} for n in range(20)]
    with started(site.search()) as client:
        client.put("/v1/documents", json={"documents": [long, *short]})
        found = _found(client, "zebra has stripes", limit=10)
        assert found[0] == "long" and len(found) == 10


def test_passages_of_a_document_are_about_as_long() -> None:
    """A short rest would rank before whole documents."""
    text = "A sentence of some words. " * 82
    lengths = [len(passage.text) for passage in split(text, 2000, 200)]
    assert len(lengths) == 2 and min(lengths) > 0.7 * max(lengths)


def test_long_document_is_found_by_its_passage(site: Site) -> None:
    site.defaults = CollectionDefaults(passage_characters=60, passage_overlap=10)
    text = "Cats sleep on sofas. " * 5 + "A zebra crosses the road. " + "Dogs bark at night. " * 5
    with started(site.search()) as client:
        long = {"documents": [{"id": "long", "text": text}, {"id": "short", "text": "A fox"}]}
        client.put("/v1/documents", json=long)
        results = client.post("/v1/search", json={"query": "zebra crosses road"}).json()["results"]
        assert [each["id"] for each in results] == ["long", "short"]
        best = results[0]
        assert "zebra" in best["text"] and best["passages"] > 3 and len(best["text"]) <= 60
        assert text[best["start"] :].startswith(best["text"])
        state = client.get("/v1/collections/documents").json()
        assert state["documents"] == 2 and state["passages"] == best["passages"] + 1
        # A shorter text leaves no passage behind.
        client.put("/v1/documents", json={"documents": [{"id": "long", "text": "A cow"}]})
        assert client.get("/v1/collections/documents").json()["passages"] == 2
        client.post("/v1/documents/delete", json={"ids": ["long"]})
        assert _found(client, "cow") == ["short"]


def test_collections_are_separate_and_can_be_deleted(client: TestClient) -> None:
    made = client.post("/v1/collections", json={"name": "other", "language": "none"})
    assert made.status_code == 201 and made.json()["documents"] == 0
    again = client.post("/v1/collections", json={"name": "other"})
    assert (again.status_code, again.json()["error"]["type"]) == (409, "conflict")
    client.put("/v1/documents", json={"collection": "other", "documents": DOCUMENTS[:1]})
    assert _found(client, "cat", collection="other") == ["cat"]
    assert client.get("/v1/collections").json() == {"collections": ["documents", "other"]}
    assert client.delete("/v1/collections/other").status_code == 204
    gone = client.post("/v1/search", json={"query": "cat", "collection": "other"})
    assert (gone.status_code, gone.json()["error"]["type"]) == (404, "not_found")
    assert client.get("/v1/collections").json() == {"collections": ["documents"]}


def test_another_interface_gets_the_same_answer(client: TestClient) -> None:
    body = {"query": "warm cat sofa", "collection": "documents", "limit": 2}
    ours = client.post("/v1/search", json={**body, "threshold": 0.6}).json()
    theirs = client.post("/search/hybrid", json={**body, "score_threshold": 0.6})
    assert theirs.status_code == 200 and theirs.json() == ours


def test_best_results_are_reranked(site: Site) -> None:
    site.rerank_budget = 5
    with started(site.search()) as client:
        client.put("/v1/documents", json={"documents": DOCUMENTS})
        answer = client.post("/v1/search", json={"query": "the cat"}).json()
        best = [each for each in answer["results"] if each.get("rerank_score") is not None]
        assert answer["reranked"] and len(best) == 3 and answer["results"][:3] == best
        assert [len(each["text"]) for each in best] == sorted(len(each["text"]) for each in best)
        plain = client.post("/v1/search", json={"query": "the cat", "rerank": False}).json()
        assert not plain["reranked"] and plain["results"][0]["id"] == "cat"


def test_results_are_fused_where_the_reranker_is_late(site: Site) -> None:
    site.rerank_budget, site.rerank_seconds = 0.05, 0.5
    with started(site.search()) as client:
        client.put("/v1/documents", json={"documents": DOCUMENTS})
        answers = [client.post("/v1/search", json={"query": "warm cat"}) for _ in range(2)]
        assert [each.json()["reranked"] for each in answers] == [False, False]
        assert answers[0].json()["results"][0]["id"] == "cat"
        # The next one may be in time.
        assert answers[1].headers["X-Search-Cache"] == "miss"


def _lines(count: int, first: int = 0) -> bytes:
    lines = ({"id": str(n), "text": f"document {n}"} for n in range(first, first + count))
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_one_search_at_a_time_reads_the_settings_of_a_collection(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, read = site.search(), list[str]()
    with started(search) as client, ThreadPoolExecutor(8) as threads:
        assert _found(client, "cat") == []
        known = search.collections._known
        known["documents"] = (0.0, known["documents"][1])  # out of date
        ask = search.collections._read

        async def slowly(name: str) -> Any:
            read.append(name)
            await asyncio.sleep(0.5)
            return await ask(name)

        monkeypatch.setattr(search.collections, "_read", slowly)
        list(threads.map(lambda number: _found(client, f"cat {number}"), range(8)))
        assert read == ["documents"]


def test_lines_are_loaded_in_one_request(client: TestClient) -> None:
    answer = client.put("/v1/collections/documents/documents", content=_lines(300))
    assert (answer.status_code, answer.json()) == (200, {"lines": 300})
    assert client.get("/v1/collections/documents").json()["documents"] == 304


def test_interrupted_load_goes_on_where_it_stopped(client: TestClient, site: Site) -> None:
    lines = _lines(200) + b"no json\n" + _lines(100, 200)
    path = "/v1/collections/documents/documents"
    error = client.put(path, content=lines).json()["error"]
    assert (error["type"], error["stored_lines"]) == ("invalid_request", 128)
    assert error["message"].startswith("line 201: ")
    fixed = lines.replace(b"no json\n", b"")
    assert client.put(path, content=fixed, params={"skip": 128}).json() == {"lines": 300}
    assert client.get("/v1/collections/documents").json()["documents"] == 304
    site.embeddings_status = 500
    error = client.put(path, content=_lines(10)).json()["error"]
    assert (error["type"], error["stored_lines"]) == ("embeddings_unavailable", 0)


def _settled(client: TestClient, name: str = "documents") -> dict[str, Any]:
    for _ in range(500):
        answer = client.put("/v1/documents", json={"collection": name, "documents": DOCUMENTS[:1]})
        if answer.status_code == 204:
            break
        # A collection of an earlier release has no name for a moment.
        assert answer.json()["error"]["type"] in ("conflict", "not_found"), answer.text
        time.sleep(0.02)
    state: dict[str, Any] = client.get(f"/v1/collections/{name}").json()
    return state


def test_collection_is_embedded_again_behind_its_name(client: TestClient, site: Site) -> None:
    before = client.get("/v1/collections/documents").json()
    site.asked.clear()
    assert client.post("/v1/collections/documents/reembed").status_code == 202
    assert _found(client, "cat")[0] == "cat"
    state = _settled(client)
    assert {text for texts in site.asked for text in texts} >= {d["text"] for d in DOCUMENTS}
    assert state["documents"] == 4
    assert state["mean_words"] == pytest.approx(before["mean_words"], rel=0.05)
    assert _found(client, "barking", mode="words") == ["dog"]
    assert client.get("/v1/collections").json() == {"collections": ["documents"]}


def _answer(client: TestClient, mode: str) -> Any:
    return client.post("/v1/search", json={"query": "cat", "mode": mode})


def test_collection_of_another_model_is_embedded_again(client: TestClient, site: Site) -> None:
    site.documents_may_pass.clear()
    with started(site.search(EmbeddingModel("other"))) as other:
        assert _answer(other, "hybrid").json()["results"][0]["id"] == "cat"
        assert _found(other, "cat", mode="words") == ["cat"]
        for refused in (
            _answer(other, "meaning"),
            other.put("/v1/documents", json={"documents": DOCUMENTS}),
        ):
            assert (refused.status_code, refused.json()["error"]["type"]) == (409, "conflict")
        site.documents_may_pass.set()
        assert _settled(other)["model"] == "other"
        assert _found(other, "cat", mode="meaning")[0] == "cat"


def _earlier_release(site: Site) -> None:
    """A collection without settings, whose name is no alias and whose words are not Qdrant's."""
    httpx.put(
        f"{site.qdrant_url}/collections/documents",
        json={
            "vectors": {"dense": {"size": 64, "distance": "Cosine"}},
            "sparse_vectors": {"keywords": {"modifier": "idf"}},
        },
    ).raise_for_status()
    text = DOCUMENTS[0]["text"]
    vector = {"dense": double.embed(text), "keywords": {"indices": [1], "values": [1.0]}}
    point = {"id": 1, "vector": vector, "payload": {**DOCUMENTS[0], "metadata": {}}}
    url = f"{site.qdrant_url}/collections/documents/points"
    httpx.put(url, json={"points": [point]}).raise_for_status()


def test_collection_of_an_earlier_release_is_embedded_again(site: Site) -> None:
    _earlier_release(site)
    site.documents_may_pass.clear()
    with started(site.search()) as client:
        assert _found(client, "cat") == ["cat"]
        assert _answer(client, "words").status_code == 409
        site.documents_may_pass.set()
        assert _settled(client)["documents"] == 1
        assert _found(client, "sleeping", mode="words") == ["cat"]


def test_interrupted_reembedding_begins_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _earlier_release(site)
    monkeypatch.setattr("search_api.reembed.LEASE_SECONDS", 0)

    async def interrupted() -> None:
        search = site.search()
        await search.prepare()
        await Reembedding(search).begin("documents")

    asyncio.run(interrupted())
    with started(site.search()) as client:
        assert _settled(client)["documents"] == 1
        assert _found(client, "sleeping", mode="words") == ["cat"]


def test_near_duplicates_are_left_out_on_every_page(site: Site) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    documents = [
        {"id": f"{topic}-{copy}", "text": f"topic{topic} is about {words[topic:]} copy{copy}"}
        for topic in range(0, 200, 20)
        for copy in range(12)
    ]
    with started(site.search()) as client:
        client.put("/v1/documents", json={"documents": documents}).raise_for_status()
        assert len(_found(client, "word40", limit=50)) == 50
        found: list[str] = []
        offset: int | None = 0
        while offset is not None:
            body = {"query": "word40", "limit": 3, "offset": offset, "distinct": True}
            page = client.post("/v1/search", json=body).json()
            found += [result["id"] for result in page["results"]]
            offset = page["next_offset"]
        assert found == _found(client, "word40", limit=100, distinct=True)
        assert 1 < len(found) < 20
