"""What the service does, without HTTP."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from search_api.cache import Cache
from search_api.embeddings import Embeddings
from search_api.errors import ServiceError, StoreUnavailable
from search_api.fusion import fuse
from search_api.store import Document, Store

Name = Annotated[str, Field(min_length=1, max_length=512)]
_log = logging.getLogger(__name__)


class Body(BaseModel):
    """A request's body; an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid")


class Question(Body):
    """What is looked for."""

    query: str = Field(min_length=1, max_length=8192)
    limit: int = Field(default=10, ge=1, le=100, description="Most results.")
    threshold: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Least score of a result: the sum of 1 / (60 + rank) over both rankings, so"
        " 2 / 61 at most.",
    )


class Result(BaseModel):
    """A document that was found."""

    id: str
    score: float
    text: str
    metadata: dict[str, Any]


class Results(BaseModel):
    """The best first."""

    results: list[Result]


class NewDocument(Body):
    """A document to be found; one with the same `id` is replaced."""

    id: Name
    text: str = Field(min_length=1, max_length=100_000)
    metadata: dict[str, Any] = Field(default_factory=dict)


class Search:
    """Hybrid search over one collection."""

    def __init__(self, store: Store, embeddings: Embeddings, cache: Cache, candidates: int) -> None:
        self._store, self._embeddings, self._cache = store, embeddings, cache
        self._candidates = candidates
        self.ready = False

    async def prepare(self, pause_seconds: float = 2.0) -> None:
        """Wait until the other services answer, and make the collection if it is not there."""
        while not self.ready:
            try:
                await self._store.prepare(await self._embeddings.length())
                self.ready = True
            except ServiceError as error:
                _log.warning("waiting: %s", error)
                await asyncio.sleep(pause_seconds)

    async def find(self, question: Question) -> tuple[str, bool]:
        """`Results` as JSON, and whether they were kept from an earlier search."""
        self._require_ready()
        key = await self._cache.key(question.model_dump())
        if kept := await self._cache.get(key):
            return kept, True
        (vector,) = await self._embeddings.of([question.query])
        # Fusion can raise what neither ranking has among its very first.
        depth = max(self._candidates, question.limit)
        rankings = await self._store.rankings(question.query, vector, depth)
        scores = {
            point: score
            for point, score in fuse(*rankings)[: question.limit]
            if score >= question.threshold
        }
        found = await self._store.documents([*scores])
        results = [
            Result(score=score, **asdict(found[point]))
            for point, score in scores.items()
            if point in found
        ]
        answer = Results(results=results).model_dump_json()
        await self._cache.put(key, answer)
        return answer, False

    async def put(self, documents: Sequence[NewDocument]) -> None:
        """Add documents, or replace those with the same names."""
        self._require_ready()
        vectors = await self._embeddings.of([document.text for document in documents])
        await self._store.put([Document(**each.model_dump()) for each in documents], vectors)
        await self._cache.forget()

    async def remove(self, names: Sequence[str]) -> None:
        """Remove documents by name."""
        self._require_ready()
        await self._store.remove(names)
        await self._cache.forget()

    def _require_ready(self) -> None:
        if not self.ready:
            raise StoreUnavailable
