"""What the service does, without HTTP."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
from qdrant_client import models

from search_api.cache import Cache
from search_api.collections import Collection, Collections, Settings, following
from search_api.config import CollectionDefaults, Ranking
from search_api.duplicates import Distinct
from search_api.embeddings import Embeddings
from search_api.errors import NoCollection, ServiceError, StoreUnavailable, conflict
from search_api.filters import qdrant_filter
from search_api.highlights import highlights
from search_api.keywords import DETECT
from search_api.languages import language_of
from search_api.metrics import DOCUMENTS_STORED, stage
from search_api.reranker import Reranker
from search_api.schema import CollectionState, Mode, NewCollection, NewDocument, Question
from search_api.store import Document, Store, Wanted, points_of

_log = logging.getLogger(__name__)
_PASSAGES = 3
"""Points that are asked for in place of one document, in collections with split documents."""
_DEEPEST = 1000
"""Candidates of each ranking among which near-duplicates are left out."""
_RANKINGS = 3
"""Most rankings that are fused."""
_FIRST_PASSAGES = models.Filter(
    must=[models.FieldCondition(key="passage", match=models.MatchValue(value=0))]
)


class Search:
    """Hybrid search over collections."""

    def __init__(
        self,
        store: Store,
        collections: Collections,
        embeddings: Embeddings,
        cache: Cache,
        *,
        default: str,
        ranking: Ranking,
        defaults: CollectionDefaults,
        reranker: Reranker | None = None,
        rerank_top: int = 30,
        expand: bool = False,
    ) -> None:
        self.store, self.collections, self.embeddings = store, collections, embeddings
        self._cache, self._default = cache, default
        self._ranking, self._defaults = ranking, defaults
        self._reranker, self._rerank_top = reranker, rerank_top
        self._expand = expand
        self._detecting = asyncio.Lock()
        self.length = 0
        self.ready = False

    async def prepare(self, creates: bool = True, pause_seconds: float = 2.0) -> None:
        """Wait until the other services answer, and create the default collection. One of several
        processes creates it."""
        while not self.ready:
            try:
                self.length = await self.embeddings.length()
                await self._prepare_default(creates)
                self.ready = True
            except ServiceError as error:
                _log.warning("waiting: %s", error)
                await asyncio.sleep(pause_seconds)

    async def _prepare_default(self, creates: bool) -> None:
        try:
            await self.collections.stored_as(self._default)
        except NoCollection:
            if not creates:
                raise
            try:
                await self.create(NewCollection(name=self._default))
            except ServiceError as error:
                if error.status != 409:  # a client was first
                    raise

    async def find(self, question: Question) -> tuple[bytes, bool]:
        """`Results` as JSON, and whether they were kept from an earlier search."""
        self.require_ready()
        name = question.collection or self._default
        asked = orjson.dumps(question.model_dump(), option=orjson.OPT_SORT_KEYS)
        with stage("cache"):
            kept, generation = await self._cache.get(name, asked)
        if kept is not None:
            return kept, True
        collection = await self.collections.get(name, fresh=False)
        try:
            answer, reranked = await self._answer(collection, question)
        except NoCollection:  # another process may have re-embedded it
            answer, reranked = await self._answer(await self.collections.get(name), question)
        if reranked or not self._reranks(question):  # the next search may be in time
            await self._cache.put(name, asked, generation, answer)
        return answer, False

    async def _answer(self, collection: Collection, question: Question) -> tuple[bytes, bool]:
        """`Results` as JSON, and whether they are reranked."""
        results, reranked = await self._ranked(collection, question)
        page = results[question.offset : question.offset + question.limit]
        if question.highlight:
            await self._highlight(collection, question.query, page)
        end = question.offset + len(page)
        following = end if len(results) > end and end <= 1000 else None
        answer = {"results": page, "reranked": reranked, "next_offset": following}
        return orjson.dumps(answer), reranked

    async def _highlight(
        self, collection: Collection, query: str, page: Sequence[dict[str, Any]]
    ) -> None:
        language = collection.settings.language
        if page and not collection.earlier and language not in ("none", DETECT):
            names = [result["id"] for result in page]
            with suppress(StoreUnavailable):  # stop words are then highlighted, too
                query = await self.store.words_in(collection, query, names)
        for result in page:
            result["highlights"] = highlights(result["text"], query, language)

    def _modes(self, collection: Collection, mode: Mode) -> set[Mode]:
        """Rankings of a question that the collection's vectors allow; until it is re-embedded, a
        hybrid search does with one. Raises ServiceError where none is left."""
        settings = collection.settings
        known: set[Mode] = set() if collection.earlier else {"words"}
        if settings.length == self.length and settings.model in ("", self.embeddings.model):
            known.add("meaning")
        usable = known if mode == "hybrid" else known & {mode}
        if not usable:
            raise _outdated(collection)
        return usable

    async def outdated(self) -> list[str]:
        """Collections whose vectors are not of the present model."""
        names = {*await self.collections.names(), self._default}
        found = [await self.collections.get(name) for name in sorted(names)]
        model, length = self.embeddings.model, self.length
        return [each.name for each in found if each.outdated(model, length)]

    def _expands(self, question: Question) -> bool:
        return self._expand if question.expand is None else question.expand

    def _reranks(self, question: Question) -> bool:
        return self._reranker is not None and question.rerank is not False

    async def _ranked(
        self, collection: Collection, question: Question
    ) -> tuple[list[dict[str, Any]], bool]:
        """All results up to the end of the page, and one more."""
        modes, vector = self._modes(collection, question.mode), None
        if "meaning" in modes:
            with stage("embed"):
                vector = await self.embeddings.of_query(question.query)
        end = question.offset + question.limit + 1
        if self._reranks(question):
            end = max(end, self._rerank_top)
        wanted = Wanted(
            question.query,
            vector,
            "words" in modes,
            qdrant_filter(question.filter),
            self._ranking.candidates,
        )
        if self._expands(question):
            with stage("expand"):
                wanted = await self.store.expanded(collection, self._ranking, wanted)
        with stage("store"):
            results = await self._first(collection, wanted, end, question.distinct)
        results = [each for each in results if each["score"] >= question.threshold]
        if not self._reranks(question):
            return results, False
        return await self._rerank(question.query, results)

    async def _first(
        self, collection: Collection, wanted: Wanted, count: int, distinct: bool
    ) -> list[dict[str, Any]]:
        """The first documents: those of few candidates, then of four times as many without those
        that are found already. So no page repeats or misses a document, however deep it is."""
        seen, found, texts = set[str](), list[dict[str, Any]](), Distinct()
        while True:
            # Nobody knows how many documents near-duplicates leave.
            needed = wanted.depth if distinct else count + len(seen)
            points = await self._points(collection, wanted, needed)
            new = [each for each in _documents(points) if each["id"] not in seen]
            new = new[: wanted.depth - len(seen)]
            seen |= {each["id"] for each in new}
            if distinct:  # many long texts would keep the event loop
                new = await asyncio.to_thread(texts.of, new)
            found += new
            deepest = distinct and wanted.depth >= _DEEPEST
            if len(found) >= count or len(points) < wanted.depth or deepest:
                return found[:count]
            wanted = replace(wanted, depth=wanted.depth * 4)

    async def _points(
        self, collection: Collection, wanted: Wanted, documents: int
    ) -> list[dict[str, Any]]:
        """The best points, and all where they are of fewer documents."""
        most = wanted.depth * _RANKINGS
        limit = min(most, documents * (_PASSAGES if collection.settings.split else 1))
        points = await self.store.find(collection, self._ranking, replace(wanted, limit=limit))
        if len(points) < limit or limit == most or len(_documents(points)) >= documents:
            return points
        return await self.store.find(collection, self._ranking, replace(wanted, limit=most))

    async def _rerank(
        self, query: str, results: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], bool]:
        assert self._reranker
        best, rest = results[: self._rerank_top], results[self._rerank_top :]
        with stage("rerank"):
            scores = await self._reranker.scores(query, [each["text"] for each in best])
        if scores is None:
            return results, False
        for result, score in zip(best, scores, strict=True):
            result["rerank_score"] = score
        return sorted(best, key=lambda each: -each["rerank_score"]) + rest, True

    async def put(self, name: str | None, documents: Sequence[NewDocument]) -> None:
        """Add documents, or replace those with the same names; of two with one name, the last."""
        collection = await self.writable(name)
        last = {document.id: document for document in documents}.values()
        collection = await self._with_language(collection, [document.text for document in last])
        points = [
            point
            for document in last
            for point in points_of(collection, Document(**document.model_dump()))
        ]
        vectors = await self.embeddings.of([point.text for point in points])
        try:
            await self.store.put(collection, points, vectors)
        except NoCollection:  # re-embedded meanwhile, or deleted
            await self._unchanged(collection)
            raise
        await self._cache.forget(collection.name)
        await self._unchanged(collection)
        DOCUMENTS_STORED.inc(len(last))

    async def remove(self, name: str | None, documents: Sequence[str]) -> None:
        """Remove documents by name."""
        collection = await self.writable(name)
        await self.store.remove(collection, documents)
        await self._cache.forget(collection.name)
        await self._unchanged(collection)

    async def writable(self, name: str | None) -> Collection:
        """A collection whose documents may change. Raises ServiceError."""
        self.require_ready()
        collection = await self.collections.get(name or self._default)
        if collection.locked or collection.outdated(self.embeddings.model, self.length):
            raise _outdated(collection)
        return collection

    async def _unchanged(self, collection: Collection) -> Collection:
        """The collection as it is now. Raises ServiceError if its re-embedding has begun: a change
        of the old one may be lost."""
        now = await self.writable(collection.name)
        if now.stored_as != collection.stored_as:
            raise _outdated(collection)
        return now

    async def _with_language(self, collection: Collection, texts: Sequence[str]) -> Collection:
        """The collection, whose first documents decide its language unless that is declared."""
        if collection.settings.language != DETECT:
            return collection
        async with self._detecting:
            collection = await self.collections.get(collection.name)
            if collection.settings.language != DETECT:
                return collection
            language = await asyncio.to_thread(language_of, texts)
            return await self.collections.note(collection, language=language)

    async def create(self, new: NewCollection) -> None:
        """Raises ServiceError where there is one of this name."""
        given = new.model_dump(exclude_none=True, exclude={"name"})
        await self.collections.create(new.name, self.settings(**given))

    def settings(self, **given: Any) -> Settings:
        """Of a new collection."""
        known = {**vars(self._defaults), **given}
        known["detects"] = known["language"] == DETECT
        known["passage_overlap"] = min(known["passage_overlap"], known["passage_characters"] // 2)
        return Settings(**known, model=self.embeddings.model, length=self.length)

    async def delete(self, name: str) -> None:
        """Raises NoCollection."""
        self.require_ready()
        await self.collections.delete(name)
        await self._cache.forget(name)

    async def forget(self, name: str) -> None:
        """Keep no answer of a collection."""
        await self._cache.forget(name)

    async def describe(self, name: str) -> CollectionState:
        """Raises NoCollection."""
        self.require_ready()
        collection = await self.collections.get(name)
        settings = collection.settings
        return CollectionState(
            name=name,
            documents=await self.collections.count(name, _FIRST_PASSAGES),
            passages=await self.collections.count(name),
            language=settings.language,
            mean_words=settings.mean_words,
            fields=dict(settings.fields),
            model=settings.model,
            vector_length=settings.length,
            reembedded_passages=await self._reembedded(collection),
        )

    async def _reembedded(self, collection: Collection) -> int | None:
        if not collection.locked:
            return None
        try:
            return await self.collections.count(following(collection.name, collection.stored_as))
        except NoCollection:
            return 0

    def require_ready(self) -> None:
        if not self.ready:
            raise StoreUnavailable


def _outdated(collection: Collection) -> ServiceError:
    return conflict(f"{collection.name!r} is being re-embedded; try again later.")


def _documents(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One result a document: its best passage."""
    found: dict[str, dict[str, Any]] = {}
    for point in points:
        payload = point["payload"]
        if payload["id"] not in found:
            found[payload["id"]] = {"id": payload["id"], "score": point["score"], **payload}
    return [*found.values()]
