"""Collections that several requests or processes create, change and re-embed at a time."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from search_api import collections
from search_api.errors import ServiceError
from search_api.reembed import Reembedding
from search_api.schema import NewCollection, NewDocument, Question
from search_api.search import Search
from tests.unit.test_search_api import DOCUMENTS, Site, client, site, started  # noqa: F401

CAT = NewDocument(**DOCUMENTS[0])


def _statuses(found: list[Any]) -> list[int]:
    return sorted(each.status if isinstance(each, ServiceError) else 201 for each in found)


async def _ready(site: Site, processes: int) -> list[Search]:  # noqa: F811
    searches = [site.search() for _ in range(processes)]
    for each in searches:
        await each.prepare()
    return searches


def _stored(site: Site) -> set[str]:  # noqa: F811
    found = httpx.get(f"{site.qdrant_url}/collections").json()["result"]["collections"]
    return {each["name"] for each in found}


@pytest.mark.parametrize("processes", [1, 2])
def test_one_of_two_creates_at_a_time_succeeds(
    site: Site,  # noqa: F811
    processes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collections, "CREATION_SECONDS", 1)

    async def create() -> list[Any]:
        searches = await _ready(site, processes)
        wanted = (searches[n % processes].create(NewCollection(name="docs")) for n in range(4))
        return await asyncio.gather(*wanted, return_exceptions=True)

    assert _statuses(asyncio.run(create())) == [201, 409, 409, 409]
    assert _stored(site) == {"documents--1", "docs--1"}


def test_late_create_deletes_no_documents(
    site: Site,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other process looks before the first one begins, and creates when that has finished."""
    monkeypatch.setattr(collections, "CREATION_SECONDS", 0)

    async def create() -> None:
        first, second = await _ready(site, 2)
        free = second.collections._free

        async def slowly(name: str) -> str:
            found = await free(name)
            await first.create(NewCollection(name=name))
            await first.put(name, [CAT])
            return found

        monkeypatch.setattr(second.collections, "_free", slowly)
        with pytest.raises(ServiceError) as refused:
            await second.create(NewCollection(name="docs"))
        assert refused.value.status == 409 and "'docs'" in str(refused.value)
        assert (await first.describe("docs")).documents == 1

    asyncio.run(create())


def test_interrupted_creation_hinders_no_other(
    site: Site,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collections, "CREATION_SECONDS", 0)

    async def create() -> None:
        (search,) = await _ready(site, 1)
        await search.collections.store("docs", "docs--1", search.settings())
        await search.create(NewCollection(name="docs"))
        assert {"docs--1", "docs--2"} < _stored(site)
        await search.delete("docs")

    asyncio.run(create())
    assert _stored(site) == {"documents--1"}


def test_name_in_qdrant_is_none_for_clients(client: TestClient) -> None:  # noqa: F811
    name = "documents--1"
    refused = client.post("/v1/collections", json={"name": name})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request")
    path = f"/v1/collections/{name}"
    for answer in (
        client.delete(path),
        client.get(path),
        client.post(f"{path}/reembed"),
        client.put("/v1/documents", json={"collection": name, "documents": DOCUMENTS}),
        client.post("/v1/documents/delete", json={"collection": name, "ids": ["cat"]}),
        client.post("/v1/search", json={"collection": name, "query": "cat"}),
        client.put(f"{path}/documents", content=b""),
    ):
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found")
    assert client.get("/v1/collections/documents").json()["documents"] == 4


def test_collection_of_an_earlier_release_keeps_a_name_that_is_now_refused(
    site: Site,  # noqa: F811
) -> None:
    async def use() -> None:
        (search,) = await _ready(site, 1)
        await search.collections.store("docs--2", "docs--2--1", search.settings())
        await search.collections.point("docs--2", "docs--2--1")
        await search.put("docs--2", [CAT])
        reembedding = Reembedding(search)
        await reembedding.finish(await reembedding.begin("docs--2"))
        assert (await search.describe("docs--2")).documents == 1
        await search.delete("docs--2")

    asyncio.run(use())
    assert _stored(site) == {"documents--1"}


def test_reembedding_that_cannot_begin_unlocks_the_collection(
    site: Site,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def reembed() -> None:
        (search,) = await _ready(site, 1)

        async def refuse(*_: Any) -> None:
            raise ServiceError(503, "store_unavailable", "")

        monkeypatch.setattr(search.collections, "store", refuse)
        reembedding = Reembedding(search)
        await reembedding.finish(await reembedding.begin("documents"))
        await search.put(None, [CAT])

    asyncio.run(reembed())


@pytest.mark.parametrize("until", ["locked", "moved"])
def test_write_that_began_before_a_reembedding_is_refused(
    site: Site,  # noqa: F811
    until: str,
) -> None:
    site.documents_may_pass.clear()

    async def write() -> None:
        first, second = await _ready(site, 2)
        writing = asyncio.create_task(first.put(None, [CAT]))
        while not writing.done() and not site.waiting:
            await asyncio.sleep(0.01)
        reembedding = Reembedding(second)
        locked = await reembedding.begin("documents")
        if until == "moved":
            await reembedding.finish(locked)
        site.documents_may_pass.set()
        with pytest.raises(ServiceError) as refused:
            await writing
        assert refused.value.status == 409

    asyncio.run(write())


@pytest.mark.parametrize("change", ["put", "remove"])
def test_write_that_a_reembedding_overtakes_is_refused(
    site: Site,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    async def write() -> None:
        first, second = await _ready(site, 2)
        await first.put(None, [CAT])
        store = getattr(first.store, change)

        async def slowly(*arguments: Any) -> None:
            await Reembedding(second).begin("documents")
            await store(*arguments)

        monkeypatch.setattr(first.store, change, slowly)
        with pytest.raises(ServiceError) as refused:
            await (first.put(None, [CAT]) if change == "put" else first.remove(None, ["cat"]))
        assert refused.value.status == 409

    asyncio.run(write())


def test_note_of_old_settings_unlocks_no_collection(site: Site) -> None:  # noqa: F811
    async def note() -> None:
        first, second = await _ready(site, 2)
        known = await first.collections.get("documents")
        await Reembedding(second).begin("documents")
        noted = await first.collections.note(known, mean_words=7.0)
        assert noted.settings.mean_words == 7.0
        found = await second.collections.get("documents")
        assert found.locked and found.settings.mean_words == 7.0

    asyncio.run(note())


def test_search_follows_a_reembedding_of_another_process(site: Site) -> None:  # noqa: F811
    async def search() -> None:
        first, second = await _ready(site, 2)
        await first.put(None, [CAT])
        await first.find(Question(query="warm"))
        reembedding = Reembedding(second)
        await reembedding.finish(await reembedding.begin("documents"))
        found, _ = await first.find(Question(query="cat"))
        assert b'"id":"cat"' in found
        await second.delete("documents")
        with pytest.raises(ServiceError, match="no collection 'documents'") as missing:
            await first.find(Question(query="sofa"))
        assert missing.value.status == 404

    asyncio.run(search())
