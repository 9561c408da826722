"""Documents whose ids resemble each other, and documents that are too large for a request or too
long for a model."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
import pytest
from fastapi.testclient import TestClient

from search_api import store
from search_api.config import CollectionDefaults
from search_api.errors import EmbeddingsUnavailable, ServiceError
from tests.unit.test_search_api import DOCUMENTS, Site, client, site, started  # noqa: F401

LINES = "/v1/collections/documents/documents"
PASSAGES = CollectionDefaults(passage_characters=60, passage_overlap=10)
LONG = "The zebra has stripes and runs far away. " * 10


def _lines(*documents: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in documents)


def _state(client: TestClient) -> dict[str, Any]:  # noqa: F811
    state: dict[str, Any] = client.get("/v1/collections/documents").json()
    return state


def _put(client: TestClient, *documents: dict[str, Any]) -> Any:  # noqa: F811
    return client.put("/v1/documents", json={"documents": documents})


def test_passage_never_replaces_a_document_with_a_similar_name(site: Site) -> None:  # noqa: F811
    site.defaults = PASSAGES
    with started(site.search()) as client:  # noqa: F811
        _put(client, {"id": "a.md#1", "text": "A cow"})
        _put(client, {"id": "a.md", "text": LONG})
        assert _state(client)["documents"] == 2
        passages = _state(client)["passages"]
        _put(client, {"id": "a.md#1", "text": "A fox"})
        assert _state(client)["passages"] == passages


def _make_earlier(site: Site) -> None:  # noqa: F811
    """Give the second passage the id that earlier releases gave it."""
    points = f"{site.qdrant_url}/collections/documents/points"
    wanted = {"limit": 100, "with_vector": True}
    found = httpx.post(f"{points}/scroll", json=wanted).json()["result"]["points"]
    (second,) = (each for each in found if each["payload"]["passage"] == 1)
    httpx.post(f"{points}/delete", json={"points": [second["id"]]}).raise_for_status()
    second["id"] = str(uuid5(NAMESPACE_URL, f"{second['payload']['id']}#1"))
    httpx.put(points, json={"points": [second]}).raise_for_status()


@pytest.mark.parametrize("change", ["replace", "delete", "reembed"])
def test_passages_with_ids_of_earlier_releases_leave_with_their_document(
    site: Site,  # noqa: F811
    change: str,
) -> None:
    site.defaults = PASSAGES
    with started(site.search()) as client:  # noqa: F811
        _put(client, {"id": "long", "text": LONG})
        passages = _state(client)["passages"]
        _make_earlier(site)
        assert _state(client)["passages"] == passages
        if change == "reembed":
            client.post("/v1/collections/documents/reembed").raise_for_status()
            while _put(client, {"id": "long#1", "text": "A cow"}).status_code != 204:
                pass
            assert _state(client)["passages"] == passages + 1
        elif change == "replace":
            _put(client, {"id": "long", "text": LONG})
            assert _state(client)["passages"] == passages
        else:
            client.post("/v1/documents/delete", json={"ids": ["long"]})
            assert _state(client)["passages"] == 0


def test_batch_larger_than_a_request_of_qdrant_is_stored(site: Site) -> None:  # noqa: F811
    documents = [
        {"id": str(number), "text": f"document {number}", "metadata": {"x": "x" * 900_000}}
        for number in range(40)
    ]
    with started(site.search()) as client:  # noqa: F811
        answer = client.put(LINES, content=_lines(*documents))
        assert answer.json() == {"lines": 40}
        assert _state(client)["documents"] == 40


def test_document_larger_than_a_request_of_qdrant_is_refused(site: Site) -> None:  # noqa: F811
    with started(site.search()) as client:  # noqa: F811
        refused = _put(client, {"id": "1", "text": "x", "metadata": {"x": "x" * 32 * 2**20}})
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request")


def test_failure_between_two_requests_of_a_batch_loses_no_passage(
    site: Site,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site.defaults = PASSAGES
    monkeypatch.setattr(store, "POINTS", 2)
    search = site.search()
    with started(search) as client:  # noqa: F811
        documents = [{"id": name, "text": LONG} for name in "ab"]
        _put(client, *documents)
        passages = _state(client)["passages"]
        update, sent = search.store._update, list[int]()

        async def fails_at_the_second(*arguments: Any) -> None:
            sent.append(len(arguments[1]))
            if len(sent) == 2:
                raise ServiceError(503, "store_unavailable", "")
            await update(*arguments)

        monkeypatch.setattr(search.store, "_update", fails_at_the_second)
        shorter = [{"id": name, "text": LONG[:150]} for name in "ab"]
        assert _put(client, *shorter).status_code == 503
        assert _state(client)["passages"] == passages
        assert _put(client, *shorter).status_code == 204
        assert _state(client)["documents"] == 2 and _state(client)["passages"] < passages
        assert max(sent) == 2


def test_query_that_is_too_long_fails_alone(site: Site) -> None:  # noqa: F811
    embeddings = site.search().embeddings
    site.reads = 20

    async def ask() -> list[Any]:
        queries = ["one", "two", "three", "long " * 10, "four", "five"]
        wanted = (embeddings.of_query(query) for query in queries)
        return await asyncio.gather(*wanted, return_exceptions=True)

    found = asyncio.run(ask())
    assert [isinstance(each, list) for each in found] == [True, True, True, False, True, True]
    assert (found[3].status, found[3].kind) == (400, "invalid_request")
    assert "long long" in str(found[3]) and "longer than the embedding model" in str(found[3])


def test_service_that_fails_is_not_asked_for_every_text(site: Site) -> None:  # noqa: F811
    site.embeddings_status = 500
    with pytest.raises(EmbeddingsUnavailable):
        asyncio.run(site.search().embeddings.of([str(number) for number in range(32)]))
    assert len(site.asked) == 6  # all, then the first half of each


def test_refusal_for_another_reason_is_reported(site: Site) -> None:  # noqa: F811
    site.embeddings_status = 400
    with pytest.raises(ServiceError, match="The embedding service refuses this") as refused:
        asyncio.run(site.search().embeddings.of(["x"]))
    assert refused.value.status == 400


def test_document_that_is_too_long_for_the_model_is_refused(site: Site) -> None:  # noqa: F811
    lines = [{"id": str(number), "text": f"document {number}"} for number in range(200)]
    lines[150]["text"] = "long " * 10
    with started(site.search()) as client:  # noqa: F811
        site.reads = 20
        error = client.put(LINES, content=_lines(*lines)).json()["error"]
        assert (error["type"], error["stored_lines"]) == ("invalid_request", 128)
        assert "long long" in error["message"]
        assert _put(client, lines[150]).status_code == 400
        assert _put(client, lines[0]).status_code == 204


def test_searches_go_on_while_one_query_is_too_long(site: Site) -> None:  # noqa: F811
    with started(site.search()) as client, ThreadPoolExecutor(8) as threads:  # noqa: F811
        site.reads = 20

        def status(query: str) -> int:
            return client.post("/v1/search", json={"query": query}).status_code

        statuses = [*threads.map(status, [f"query {n}" for n in range(16)] + ["long " * 10] * 4)]
        assert statuses == [200] * 16 + [400] * 4


def test_reranker_that_refuses_a_long_text_gets_its_beginning(site: Site) -> None:  # noqa: F811
    site.rerank_budget = 5
    with started(site.search()) as client:  # noqa: F811
        _put(client, *DOCUMENTS, {"id": "long", "text": "cat " * 400})
        site.reads = 500
        answer = client.post("/v1/search", json={"query": "the cat"}).json()
        assert answer["reranked"]
        assert [max(map(len, texts)) for texts in site.reranked] == [1600, 1000, 250]
        assert any(len(each["text"]) == 1600 for each in answer["results"])


def test_reranker_is_not_asked_about_no_results(site: Site) -> None:  # noqa: F811
    site.rerank_budget = 5
    with started(site.search()) as client:  # noqa: F811
        answers = [client.post("/v1/search", json={"query": "cat"}) for _ in range(2)]
        assert answers[0].json() == {"results": [], "reranked": True, "next_offset": None}
        assert answers[1].headers["X-Search-Cache"] == "hit" and site.reranked == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_line_with_a_number_that_json_has_not_is_refused(
    client: TestClient,  # noqa: F811
    number: str,
) -> None:
    line = f'{{"id": "x", "text": "x", "metadata": {{"a": {number}}}}}'.encode()
    error = client.put(LINES, content=line).json()["error"]
    assert error["type"] == "invalid_request" and error["message"].startswith("line 1: ")


def test_byte_order_mark_before_the_first_line_is_skipped(client: TestClient) -> None:  # noqa: F811
    lines = b"\xef\xbb\xbf" + _lines({"id": "x", "text": "x"}, {"id": "y", "text": "y"})
    assert client.put(LINES, content=lines).json() == {"lines": 2}


def test_no_lines_for_a_missing_collection_are_refused(client: TestClient) -> None:  # noqa: F811
    missing = client.put("/v1/collections/missing/documents", content=b"")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found")
    assert client.put(LINES, content=b"").json() == {"lines": 0}
