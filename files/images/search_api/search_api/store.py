"""Documents in Qdrant: each passage a point with a dense and a keyword vector."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson
from qdrant_client import AsyncQdrantClient, models

from search_api.collections import DENSE, KEYWORDS, Collection, Collections
from search_api.config import Ranking
from search_api.errors import invalid
from search_api.expansion import BEST, common_words, expanded_vector
from search_api.highlights import words_of_text
from search_api.keywords import USUAL_WORDS, document, length
from search_api.passages import split
from search_api.qdrant import Queries, asked

MEASURED = 1000
"""Texts of which the mean length is taken; re-embedding takes it of all."""
POINTS = 512
"""Most points in one request."""
REQUEST_BYTES = 8 * 2**20
"""Estimated size of a request. Qdrant accepts 32 MiB; this leaves room for the ids of the points
that a document keeps."""
POINT_BYTES = 30 * 2**20
"""Largest point."""
WORDS = 64
"""Words of a query that Qdrant is asked for one by one."""
_NUMBER_BYTES = 24
"""Most characters of a number in a vector, with its comma."""
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Document:
    """A text with its name and whatever its owner noted about it."""

    id: str
    text: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A query with its vector, where its meaning counts."""

    text: str
    vector: list[float] | None
    words: bool
    filter: dict[str, Any] | None
    depth: int
    """Candidates of each ranking."""
    limit: int = BEST
    terms: dict[str, list[Any]] | None = None
    """Sparse vector of further words, with which the query is expanded."""


@dataclass(frozen=True)
class Point:
    """One passage, before it has vectors."""

    id: str
    text: str
    payload: Mapping[str, Any]


class Store:
    """Adds, removes and finds documents; every method raises StoreUnavailable when Qdrant fails."""

    def __init__(
        self, client: AsyncQdrantClient, queries: Queries, collections: Collections
    ) -> None:
        self._client, self._queries, self._collections = client, queries, collections

    async def put(
        self, collection: Collection, points: Sequence[Point], vectors: Sequence[list[float]]
    ) -> None:
        """Add documents, in place of those with the same names."""
        # Passages of an earlier, longer text.
        left = models.Filter(
            must=[_named({point.payload["id"] for point in points})],
            must_not=[models.HasIdCondition(has_id=[point.id for point in points])],
        )
        await self.add(
            collection,
            points,
            vectors,
            models.DeleteOperation(delete=models.FilterSelector(filter=left)),
        )

    async def add(
        self,
        collection: Collection,
        points: Sequence[Point],
        vectors: Sequence[list[float]],
        *further: models.UpdateOperation,
    ) -> Collection:
        """Add points, and do what else there is with the last of them; the collection as it is
        then."""
        if not collection.settings.split and any(point.payload["passage"] for point in points):
            collection = await self._collections.note(collection, split=True)
        await self._write(collection, points, vectors, further)
        if collection.settings.measured >= MEASURED:
            return collection
        measured = await self._measure(collection, [point.id for point in points])
        if collection.settings.mean_words is None:
            await self._write(measured, points, vectors, further)
        return measured

    async def _write(
        self,
        collection: Collection,
        points: Sequence[Point],
        vectors: Sequence[list[float]],
        further: Sequence[models.UpdateOperation],
    ) -> None:
        made = [
            models.PointStruct(
                id=point.id,
                vector={DENSE: vector, KEYWORDS: _keywords(collection, point.text)},
                payload=dict(point.payload),
            )
            for point, vector in zip(points, vectors, strict=True)
        ]
        *groups, last = _groups(made, [_size(*each) for each in zip(points, vectors, strict=True)])
        for group in groups:
            await self._update(collection, group)
        # What replaces the passages that this deletes is stored.
        await self._update(collection, last, *further)

    async def _update(
        self,
        collection: Collection,
        points: list[models.PointStruct],
        *further: models.UpdateOperation,
    ) -> None:
        upsert = models.UpsertOperation(upsert=models.PointsList(points=points))
        await asked(
            self._client.batch_update_points(collection.stored_as, [upsert, *further], wait=True),
            collection.name,
        )

    async def _measure(self, collection: Collection, points: Sequence[str]) -> Collection:
        """Note the mean length of the first texts, as Qdrant counted their words."""
        found = await asked(
            self._client.retrieve(
                collection.stored_as, [*points], with_payload=False, with_vectors=[KEYWORDS]
            ),
            collection.name,
        )
        settings = collection.settings
        lengths = words_of(found, settings.mean_words or USUAL_WORDS)
        if not lengths:
            return collection
        total = settings.measured + len(lengths)
        before = (settings.mean_words or 0) * settings.measured
        mean = (before + sum(lengths)) / total
        return await self._collections.note(collection, mean_words=mean, measured=total)

    async def remove(self, collection: Collection, names: Sequence[str]) -> None:
        """Remove documents; unknown names are skipped."""
        wanted = models.FilterSelector(filter=models.Filter(must=[_named(set(names))]))
        await asked(self._client.delete(collection.stored_as, wanted, wait=True), collection.name)

    async def find(
        self, collection: Collection, ranking: Ranking, wanted: Wanted
    ) -> list[dict[str, Any]]:
        """Points in the order of their fused ranks, in one request. A score of 1 is the best
        possible: first in every ranking."""
        return await self._query(collection, ranking, wanted, with_payload=True)

    async def expanded(self, collection: Collection, ranking: Ranking, wanted: Wanted) -> Wanted:
        """The query with the vectors of its best results, which takes a request more."""
        first, named = replace(wanted, limit=BEST), [DENSE, KEYWORDS]
        points = await self._query(collection, ranking, first, with_vector=named)
        if not points:
            return wanted
        vector = wanted.vector and expanded_vector(wanted.vector, points)
        terms = common_words(points) if wanted.words else None
        return replace(wanted, vector=vector, terms=terms)

    async def _query(
        self, collection: Collection, ranking: Ranking, wanted: Wanted, **parts: Any
    ) -> list[dict[str, Any]]:
        rankings = [*_rankings(collection, ranking, wanted)]
        if not rankings:
            return []
        weights = [weight for weight, _ in rankings]
        body = {
            "prefetch": [prefetch for _, prefetch in rankings],
            # Qdrant counts ranks from 0.
            "query": {"rrf": {"k": ranking.k + 1, "weights": weights}},
            "limit": wanted.limit,
            **parts,
        }
        points = await self._queries.ask(collection.stored_as, body, collection.name)
        best = sum(1 / (ranking.k + 1 / weight) for weight in weights)
        for point in points:
            point["score"] = min(1.0, point["score"] / best)
        return points

    async def words_in(self, collection: Collection, query: str, names: Sequence[str]) -> str:
        """The words of a query that Qdrant finds in these documents; it finds no stop words."""
        words = [*dict.fromkeys(words_of_text(query))]
        if not words:
            return query
        wanted = models.Filter(must=[_named({*names})]).model_dump(exclude_none=True)
        searches = [
            {
                "query": _keywords(collection, word).model_dump(exclude_none=True),
                "using": KEYWORDS,
                "filter": wanted,
                "limit": 1,
            }
            for word in words[:WORDS]
        ]
        found = await self._queries.ask_all(collection.stored_as, searches, collection.name)
        kept = [word for word, points in zip(words, found, strict=False) if points]
        return " ".join(kept + words[WORDS:])

    async def scroll(
        self, stored_as: str, limit: int, offset: Any, vectors: bool = False
    ) -> tuple[list[models.Record], Any]:
        """Some points, and where the next begin."""
        return await asked(
            self._client.scroll(
                stored_as, limit=limit, offset=offset, with_payload=True,
                with_vectors=[KEYWORDS] if vectors else False,
            )
        )  # fmt: skip


def points_of(collection: Collection, document_: Document) -> Iterator[Point]:
    """The passages of a document."""
    settings = collection.settings
    passages = [*split(document_.text, settings.passage_characters, settings.passage_overlap)]
    for number, passage in enumerate(passages):
        payload = {
            "id": document_.id,
            "text": passage.text,
            "metadata": dict(document_.metadata),
            "passage": number,
            "passages": len(passages),
            "start": passage.start,
        }
        yield Point(point_id(document_.id, number), passage.text, payload)


def point_id(document_: str, passage: int) -> str:
    """The id of a passage, which no other document has. Qdrant takes numbers and UUIDs only."""
    first = uuid5(NAMESPACE_URL, document_)
    return str(uuid5(first, str(passage)) if passage else first)


def _size(point: Point, vector: Sequence[float]) -> int:
    """Estimated bytes of a point in a request. Pairs of letters are three times as long as the
    text."""
    words = 3 * len(point.text.encode())
    return len(orjson.dumps(dict(point.payload))) + words + _NUMBER_BYTES * len(vector)


def _groups(
    points: Sequence[models.PointStruct], sizes: Sequence[int]
) -> Iterator[list[models.PointStruct]]:
    """The points, as many in a group as fit in one request. Raises ServiceError for a point that is
    too large."""
    group, total = list[models.PointStruct](), 0
    if max(sizes) > POINT_BYTES:
        raise invalid("A document is larger than Qdrant accepts; shorten its metadata.")
    for point, size in zip(points, sizes, strict=True):
        if len(group) == POINTS or (group and total + size > REQUEST_BYTES):
            yield group
            group, total = [], 0
        group.append(point)
        total += size
    yield group


def _rankings(
    collection: Collection, ranking: Ranking, wanted: Wanted
) -> Iterator[tuple[float, dict[str, Any]]]:
    common = {"limit": wanted.depth, **({"filter": wanted.filter} if wanted.filter else {})}
    if wanted.vector is not None:
        params = {"hnsw_ef": max(ranking.hnsw_ef, wanted.depth)}
        dense = {"query": wanted.vector, "using": DENSE, "params": params, **common}
        yield ranking.meaning_weight, dense
    if wanted.words and _WORD.search(wanted.text):
        words = _keywords(collection, wanted.text).model_dump(exclude_none=True)
        yield ranking.words_weight, {"query": words, "using": KEYWORDS, **common}
    if wanted.terms and wanted.terms["indices"]:
        yield ranking.words_weight, {"query": wanted.terms, "using": KEYWORDS, **common}


def _keywords(collection: Collection, text: str) -> models.Document:
    settings = collection.settings
    return document(text, settings.language, settings.mean_words or USUAL_WORDS)


def _named(names: set[str]) -> models.FieldCondition:
    return models.FieldCondition(key="id", match=models.MatchAny(any=sorted(names)))


def words_of(points: Sequence[models.Record], mean_words: float) -> list[float]:
    """Length in words of each point that has any."""
    vectors = [point.vector.get(KEYWORDS) for point in points if isinstance(point.vector, dict)]
    return [
        length(each.values, mean_words)
        for each in vectors
        if isinstance(each, models.SparseVector) and each.values
    ]
