"""The collection in Qdrant: each document with a dense and a keyword vector."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

import httpx
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException

from search_api.errors import ServiceError, StoreUnavailable
from search_api.keywords import document_vector, query_vector

DENSE = "dense"
KEYWORDS = "keywords"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Document:
    """What is found: a text with its name and whatever its owner noted about it."""

    id: str
    text: str
    metadata: Mapping[str, Any]


class Store:
    """One collection; every method raises StoreUnavailable when Qdrant fails."""

    def __init__(self, client: AsyncQdrantClient, collection: str) -> None:
        self._client, self._collection = client, collection

    async def prepare(self, length: int) -> None:
        """Make the collection if it is not there, for dense vectors of this length."""
        if await _asked(self._client.collection_exists(self._collection)):
            await self._check(length)
            return
        await _asked(
            self._client.create_collection(
                self._collection,
                vectors_config={
                    DENSE: models.VectorParams(size=length, distance=models.Distance.COSINE)
                },
                sparse_vectors_config={
                    KEYWORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)
                },
            )
        )

    async def _check(self, length: int) -> None:
        """Raises ServiceError where another embedding model made the collection's vectors."""
        found = await _asked(self._client.get_collection(self._collection))
        vectors = found.config.params.vectors
        size = vectors[DENSE].size if isinstance(vectors, dict) and DENSE in vectors else 0
        if size != length:
            raise ServiceError(
                503,
                "store_unavailable",
                f"The collection {self._collection} has vectors of {size} numbers and the embedding"
                f" model makes {length}: name another collection, and add the documents to it.",
            )

    async def put(self, documents: Sequence[Document], vectors: Sequence[list[float]]) -> None:
        """Add documents, in place of those with the same names."""
        points = [
            models.PointStruct(
                id=_point(document.id),
                vector={DENSE: vector, KEYWORDS: _sparse(document_vector(document.text))},
                payload={
                    "id": document.id,
                    "text": document.text,
                    "metadata": dict(document.metadata),
                },
            )
            for document, vector in zip(documents, vectors, strict=True)
        ]
        await _asked(self._client.upsert(self._collection, points, wait=True))

    async def remove(self, names: Sequence[str]) -> None:
        """Remove documents; names that are not there are passed over."""
        points = models.PointIdsList(points=[_point(each) for each in names])
        await _asked(self._client.delete(self._collection, points, wait=True))

    async def rankings(self, text: str, vector: list[float], limit: int) -> list[list[str]]:
        """Points that are the best by meaning, and by words, each the best first."""
        asked = [models.QueryRequest(query=vector, using=DENSE, limit=limit)]
        if words := query_vector(text):
            asked.append(models.QueryRequest(query=_sparse(words), using=KEYWORDS, limit=limit))
        answers = await _asked(self._client.query_batch_points(self._collection, asked))
        return [[str(point.id) for point in each.points] for each in answers]

    async def documents(self, points: Sequence[str]) -> dict[str, Document]:
        """Documents by point; one that was removed meanwhile is left out."""
        if not points:
            return {}
        found = await _asked(self._client.retrieve(self._collection, [*points], with_payload=True))
        return {str(point.id): Document(**(point.payload or {})) for point in found}


async def _asked(question: Awaitable[Answer]) -> Answer:
    try:
        return await question
    except (ApiException, httpx.HTTPError, OSError) as error:
        raise StoreUnavailable from error


def _point(name: str) -> str:
    """Qdrant takes numbers and UUIDs only."""
    return str(uuid5(NAMESPACE_URL, name))


def _sparse(weights: Mapping[int, float]) -> models.SparseVector:
    return models.SparseVector(indices=[*weights], values=[*weights.values()])
