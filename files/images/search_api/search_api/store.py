"""Documents in Qdrant: each passage a point with a dense and a keyword vector."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from qdrant_client import AsyncQdrantClient, models

from search_api.collections import DENSE, KEYWORDS, Collection, Collections
from search_api.config import Ranking
from search_api.expansion import BEST, common_words, expanded_vector
from search_api.keywords import USUAL_WORDS, document, length
from search_api.passages import split
from search_api.qdrant import Queries, asked

MEASURED = 1000
"""Texts of which the mean length is taken; re-embedding takes it of all."""
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
        """Add points and do what else there is, at once; the collection as it is then."""
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
        upsert = models.UpsertOperation(upsert=models.PointsList(points=made))
        await asked(
            self._client.batch_update_points(collection.stored_as, [upsert, *further], wait=True),
            collection.name,
        )

    async def _measure(self, collection: Collection, points: Sequence[str]) -> Collection:
        """Note the mean length of the first texts, as Qdrant counted their words."""
        found = await asked(
            self._client.retrieve(
                collection.stored_as, [*points], with_payload=False, with_vectors=[KEYWORDS]
            )
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
        points = await self._queries.ask(collection.stored_as, body)
        best = sum(1 / (ranking.k + 1 / weight) for weight in weights)
        for point in points:
            point["score"] = min(1.0, point["score"] / best)
        return points

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
        name = f"{document_.id}#{number}" if number else document_.id
        # Qdrant takes numbers and UUIDs only.
        yield Point(str(uuid5(NAMESPACE_URL, name)), passage.text, payload)


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
