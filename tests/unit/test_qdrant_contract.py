"""What the search API asks of Qdrant: the stand-in and the client's own local mode agree."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.doubles.qdrant import serve

Client = AsyncQdrantClient
Job = Callable[[Client], Awaitable[Any]]
IDS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(1, 5)]
VECTORS = [[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]]
WORDS = [{1: 1.0}, {2: 1.0}, {1: 0.5, 2: 0.5}, {3: 2.0}]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with serve(0, tmp_path) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}"
        listener.shutdown()


@pytest.fixture(params=["local mode", "stand-in"])
def run(request: pytest.FixtureRequest) -> Callable[[Job], Any]:
    """Runs calls on a collection of four points."""
    url = request.getfixturevalue("server") if request.param == "stand-in" else None

    async def with_client(job: Job) -> Any:
        client = Client(url, check_compatibility=False) if url else Client(":memory:")
        await _fill(client)
        return await job(client)

    return lambda job: asyncio.run(with_client(job))


async def _fill(client: Client) -> None:
    await client.create_collection(
        "things",
        vectors_config={"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)},
        sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        metadata={"language": "english"},
    )
    await client.upsert(
        "things",
        [
            models.PointStruct(
                id=id_,
                vector={"dense": vector, "words": _sparse(words)},
                payload={"number": number, "path": f"a/{number}", "tags": ["x", str(number)]},
            )
            for number, (id_, vector, words) in enumerate(zip(IDS, VECTORS, WORDS, strict=True))
        ],
    )


def _sparse(weights: dict[int, float]) -> models.SparseVector:
    return models.SparseVector(indices=[*weights], values=[*weights.values()])


def _found(points: list[Any]) -> list[int]:
    return [IDS.index(str(point.id)) for point in points]


def test_two_rankings_are_fused_in_one_query(run: Callable[[Job], Any]) -> None:
    async def ask(client: Client) -> Any:
        return await client.query_points(
            "things",
            prefetch=[
                models.Prefetch(query=[0.75, 0.66], using="dense", limit=3),
                models.Prefetch(query=_sparse({1: 1.0}), using="words", limit=3),
            ],
            query=models.RrfQuery(rrf=models.Rrf(k=61, weights=[1.0, 0.5])),
            with_payload=["number"],
            limit=3,
        )

    points = run(ask).points
    # The nearest are 1, 2 and 0; word 1 is in 0, and less in 2: 1 / (60 + rank / weight).
    assert {IDS.index(str(point.id)): point.score for point in points} == {
        0: pytest.approx(1 / 63 + 1 / 62),
        1: pytest.approx(1 / 61),
        2: pytest.approx(1 / 62 + 1 / 64),
    }
    assert all(point.payload.keys() == {"number"} for point in points)


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        ({"key": "number", "match": {"value": 2}}, {2}),
        ({"key": "tags", "match": {"any": ["0", "3"]}}, {0, 3}),
        ({"key": "number", "range": {"gte": 1, "lt": 3}}, {1, 2}),
        ({"should": [{"key": "number", "match": {"value": 0}}]}, {0}),
        ({"must_not": [{"key": "number", "match": {"value": 0}}]}, {1, 2, 3}),
    ],
)
def test_filter_narrows_a_query(
    run: Callable[[Job], Any], condition: dict[str, Any], numbers: set[int]
) -> None:
    async def ask(client: Client) -> Any:
        wanted = models.Filter.model_validate({"must": [condition]})
        return await client.query_points("things", [1.0, 0.0], using="dense", query_filter=wanted)

    assert set(_found(run(ask).points)) == numbers


def test_points_are_counted_scrolled_replaced_and_deleted(run: Callable[[Job], Any]) -> None:
    async def ask(client: Client) -> Any:
        one = {"dense": [1.0, 0.0], "words": _sparse({1: 1.0})}
        wanted = models.Filter.model_validate({"must": [{"key": "number", "match": {"value": 3}}]})
        await client.batch_update_points(
            "things",
            [
                models.UpsertOperation(
                    upsert=models.PointsList(
                        points=[models.PointStruct(id=IDS[0], vector=one, payload={"number": 9})]
                    )
                ),
                models.DeleteOperation(delete=models.FilterSelector(filter=wanted)),
            ],
        )
        await client.delete("things", models.PointIdsList(points=[IDS[1]]))
        first, offset = await client.scroll("things", limit=1)
        rest, end = await client.scroll("things", limit=5, offset=offset)
        payloads = [(point.payload or {})["number"] for point in first + rest]
        return (await client.count("things")).count, payloads, end

    assert run(ask) == (2, [9, 2], None)


def test_collection_is_described_with_its_metadata(run: Callable[[Job], Any]) -> None:
    async def ask(client: Client) -> Any:
        return await client.get_collection("things"), await client.collection_exists("other")

    described, other = run(ask)
    assert described.config.params.vectors["dense"].size == 2
    assert described.config.metadata == {"language": "english"} and other is False


def test_alias_moves_from_one_collection_to_another(run: Callable[[Job], Any]) -> None:
    def alias(name: str) -> models.CreateAliasOperation:
        return models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=name, alias_name="current")
        )

    async def ask(client: Client) -> Any:
        await client.create_collection(
            "other", {"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)}
        )
        await client.update_collection_aliases([alias("things")])
        before = (await client.count("current")).count
        await client.update_collection_aliases([alias("other")])
        aliases = [each.collection_name for each in (await client.get_aliases()).aliases]
        return before, (await client.count("current")).count, aliases

    assert run(ask) == (4, 0, ["other"])


def _alone(server: str, job: Job) -> Any:
    async def with_client() -> Any:
        client = Client(server, check_compatibility=False, cloud_inference=True)
        await _fill(client)
        return await job(client)

    return asyncio.run(with_client())


def test_text_is_ranked_by_the_bm25_of_the_server(server: str) -> None:
    def text(words: str) -> models.Document:
        options = {"language": "english", "avg_len": 2.0}
        return models.Document(text=words, model="qdrant/bm25", options=options)

    async def ask(client: Client) -> Any:
        vector: Any = {"dense": [0.0, 1.0], "words": text("The runners are running")}
        await client.upsert("things", [models.PointStruct(id=IDS[3], vector=vector)])
        found = await client.query_points("things", text("run the"), using="words")
        return found.points, await client.retrieve("things", [IDS[3]], with_vectors=True)

    found, (kept,) = _alone(server, ask)
    assert _found(found) == [3]
    # Two words without the stop words, of a mean length of two: 1 * 2.2 / (1 + 1.2).
    assert kept.vector["words"].values == pytest.approx([1.0, 1.0])


def test_prefix_of_a_path_is_found_with_an_index(server: str) -> None:
    async def ask(client: Client) -> Any:
        params = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True)
        await client.create_payload_index("things", "path", params)
        wanted = models.Filter.model_validate(
            {"must": [{"key": "path", "match": {"prefix": "a/1"}}]}
        )
        found = await client.query_points("things", [1.0, 0.0], using="dense", query_filter=wanted)
        return found.points, (await client.get_collection("things")).payload_schema

    found, schema = _alone(server, ask)
    assert _found(found) == [1] and [*schema] == ["path"]


def test_index_answers_as_the_exact_search_does(server: str) -> None:
    async def ask(client: Client) -> Any:
        exact = models.SearchParams(exact=True)
        asked: dict[str, Any] = {"using": "dense", "limit": 2}
        first = await client.query_points("things", [0.9, 0.1], **asked, search_params=exact)
        second = await client.query_points("things", [0.9, 0.1], **asked)
        return first.points, second.points

    first, second = _alone(server, ask)
    assert _found(first) == _found(second) == [0, 1]


def test_points_outlive_the_server(tmp_path: Path) -> None:
    async def count(url: str, fill: bool) -> int:
        client = Client(url, check_compatibility=False)
        if fill:
            await _fill(client)
        return (await client.count("things")).count

    for fill in (True, False):
        with serve(0, tmp_path) as listener:
            threading.Thread(target=listener.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{listener.server_port}"
            assert asyncio.run(count(url, fill)) == 4
            listener.shutdown()


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (
            lambda client: client.set_payload("things", {"text": "x" * 33_554_432}, points=[]),
            400,
        ),
        (lambda client: client.count("nothing"), 404),
        (lambda client: client.query_points("things", [1.0, 0.0, 0.0], using="dense"), 400),
        (
            lambda client: client.create_collection(
                "things", {"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)}
            ),
            409,
        ),
    ],
)
def test_mistake_is_refused_with_the_status_of_the_server(
    server: str, job: Job, status: int
) -> None:
    with pytest.raises(UnexpectedResponse) as refused:
        _alone(server, job)
    assert refused.value.status_code == status


@pytest.mark.parametrize(
    "head", ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"]
)
def test_connection_ends_after_the_answer_if_the_client_asks(server: str, head: str) -> None:
    """As in Qdrant's actix-web; clients without a parser of HTTP read to the end."""
    address, _, port = server.removeprefix("http://").partition(":")
    with socket.create_connection((address, int(port)), timeout=10) as connection:
        connection.sendall(head.encode())
        with connection.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 ")
