"""Re-embedding: a new collection is filled from the old one, and then takes its name."""

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

from qdrant_client import models

from search_api.collections import LEASE_SECONDS, Collection, following
from search_api.errors import ServiceError
from search_api.keywords import DETECT
from search_api.languages import language_of
from search_api.search import Search
from search_api.store import MEASURED, Document, Point, point_id, points_of, words_of

BATCH = 64
_log = logging.getLogger(__name__)


class Reembedding:
    """With the present model, the true mean length, and other settings where they are given.

    Searches go on in the old collection; changes are refused until the end, so none is lost.
    """

    def __init__(self, search: Search) -> None:
        self._search = search

    async def begin(self, name: str) -> Collection:
        """Lock the collection. Raises ServiceError where it is locked already."""
        collection = await self._search.collections.get(name)
        if collection.locked:
            raise ServiceError(409, "conflict", f"{name!r} is being re-embedded already.")
        if collection.earlier:
            # It has no settings. It stays one of an earlier release until all of it is copied.
            length = collection.settings.length
            settings = replace(self._search.settings(), model="", length=length)
            collection = await self._search.collections.note(collection, **asdict(settings))
        return await self._renew(collection)

    async def _renew(self, collection: Collection) -> Collection:
        until = time.time() + LEASE_SECONDS
        return await self._search.collections.note(collection, locked_until=until)

    async def finish(self, source: Collection) -> bool:
        """Fill the new collection, give it the name, delete the old one. False if it failed."""
        search = self._search
        try:
            target = await self._new(source)
            await self._copy(source, target)
            await search.collections.replace(source, target)
            await search.forget(source.name)
        except ServiceError:
            _log.exception("%s was not re-embedded", source.name)
            await search.collections.note(source, locked_until=0.0)
            return False
        return True

    async def _new(self, source: Collection) -> Collection:
        settings = replace(
            source.settings,
            model=self._search.embeddings.model,
            length=self._search.length,
            locked_until=0.0,
        )
        if source.settings.detects:
            settings = replace(settings, language=await self._language(source))
        if source.settings.mean_words:
            mean = await self._mean(source, source.settings.mean_words)
            settings = replace(settings, mean_words=mean, measured=MEASURED)
        stored_as = following(source.name, source.stored_as)
        await self._search.collections.store(source.name, stored_as, settings)
        return Collection(source.name, stored_as, settings)

    async def _language(self, source: Collection) -> str:
        """That of some documents, which have no order."""
        points, _ = await self._search.store.scroll(source.stored_as, 256, None)
        texts = [(point.payload or {})["text"] for point in points]
        return await asyncio.to_thread(language_of, texts) if texts else DETECT

    async def _mean(self, source: Collection, known: float) -> float:
        """Mean length of all texts, in words."""
        lengths: list[float] = []
        offset = None
        while True:
            points, offset = await self._search.store.scroll(source.stored_as, 512, offset, True)
            lengths += words_of(points, known)
            if offset is None:
                return sum(lengths) / len(lengths) if lengths else known

    async def _copy(self, source: Collection, target: Collection) -> None:
        search, offset = self._search, None
        while True:
            records, offset = await search.store.scroll(source.stored_as, BATCH, offset)
            points = [point for each in records for point in _points(target, each)]
            if points:
                vectors = await search.embeddings.of([point.text for point in points])
                target = await search.store.add(target, points, vectors)
            if offset is None:
                return
            source = await self._renew(source)


async def renew_outdated(search: Search, pause_seconds: float = 60.0) -> None:
    """Re-embed the collections whose vectors are not of the present model, until none is left: what
    failed or was interrupted is begun again."""
    while True:
        try:
            names = await search.outdated()
            done = True
            for name in names:
                _log.info("re-embedding %s", name)
                reembedding = Reembedding(search)
                done &= await reembedding.finish(await reembedding.begin(name))
            if not names:
                return
        except ServiceError as error:
            _log.warning("not re-embedded: %s", error)
            done = False
        if not done:
            await asyncio.sleep(pause_seconds)


def _points(target: Collection, record: models.Record) -> Iterator[Point]:
    payload = record.payload or {}
    if "passage" in payload:
        # Earlier releases gave it another id.
        yield Point(point_id(payload["id"], payload["passage"]), payload["text"], payload)
    else:
        yield from points_of(target, Document(**payload))
