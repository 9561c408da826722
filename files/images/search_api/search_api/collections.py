"""Collections: created, listed, deleted, and re-embedded behind their names.

A collection `docs` is an alias in Qdrant of `docs--1`; re-embedding fills `docs--2` and moves the
alias. Its settings are in Qdrant's metadata of the collection.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from qdrant_client import AsyncQdrantClient, models

from search_api.errors import NoCollection, ServiceError, conflict
from search_api.qdrant import asked

DENSE = "dense"
KEYWORDS = "keywords"
FRESH_SECONDS = 5.0
"""How long a search trusts what it knows of a collection; another process may have changed it."""
LEASE_SECONDS = 120.0
"""After so long without progress, re-embedding has been interrupted."""
CREATION_SECONDS = 5.0
"""How long another process may need to create a collection."""

_SCHEMAS: Mapping[str, Any] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "boolean": models.PayloadSchemaType.BOOL,
    "path": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True),
}


@dataclass(frozen=True)
class Settings:
    """Of one collection."""

    language: str
    passage_characters: int
    passage_overlap: int
    fields: Mapping[str, str]
    model: str
    length: int
    mean_words: float | None = None
    measured: int = 0
    """Texts that `mean_words` is the mean of."""
    detects: bool = False
    """Whether documents decide `language`: the first ones, and all when it is re-embedded."""
    split: bool = False
    """Whether any document is more than one passage."""
    locked_until: float = 0.0
    """Seconds since 1970 until which re-embedding is sure to be at work."""


@dataclass(frozen=True)
class Collection:
    """Where a collection is in Qdrant."""

    name: str
    stored_as: str
    settings: Settings

    @property
    def locked(self) -> bool:
        """Whether it is being re-embedded."""
        return self.settings.locked_until > time.time()

    @property
    def earlier(self) -> bool:
        """Whether it is from a release that stored no settings and weighed words itself."""
        return not self.settings.model

    def outdated(self, model: str, length: int) -> bool:
        """Whether its vectors are not of this embedding model."""
        return (self.settings.model, self.settings.length) != (model, length)


class Collections:
    """All collections; every method raises StoreUnavailable when Qdrant fails."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        self._known: dict[str, tuple[float, Collection]] = {}
        self._creating = asyncio.Lock()

    async def get(self, name: str, fresh: bool = True) -> Collection:
        """Raises NoCollection."""
        until, known = self._known.get(name, (0.0, None))
        if known and not fresh:
            if time.monotonic() < until:
                return known
            # One search asks again; those that come meanwhile do not wait for its answer.
            self._known[name] = (time.monotonic() + FRESH_SECONDS, known)
        try:
            collection = await self._read(name)
        except ServiceError:
            self._known.pop(name, None)
            raise
        self._known[name] = (time.monotonic() + FRESH_SECONDS, collection)
        return collection

    async def _read(self, name: str) -> Collection:
        stored_as = await self.stored_as(name)
        found = await asked(self._client.get_collection(stored_as), name)
        metadata = found.config.metadata or {}
        noted = {key: metadata[key] for key in asdict(_NOTHING) if key in metadata}
        vectors: Any = found.config.params.vectors
        settings = replace(_NOTHING, **{**noted, "length": vectors[DENSE].size})
        return Collection(name, stored_as, settings)

    async def stored_as(self, name: str) -> str:
        """The name in Qdrant behind a name. Raises NoCollection."""
        aliases = (await asked(self._client.get_aliases(), name)).aliases
        stored = {each.alias_name: each.collection_name for each in aliases}.get(name)
        if stored:
            return stored
        if internal(name) or not await asked(self._client.collection_exists(name), name):
            raise NoCollection(name)
        return name

    async def names(self) -> list[str]:
        """All names; collections that are only half filled have none."""
        aliases = (await asked(self._client.get_aliases())).aliases
        return sorted(each.alias_name for each in aliases if internal(each.collection_name))

    async def create(self, name: str, settings: Settings) -> None:
        """Raises ServiceError where there is one of this name. It deletes nothing: what it finds
        may be another request's."""
        async with self._creating:
            stored_as = await self._free(name)
            await self._store(name, stored_as, settings)
            await self.point(name, stored_as)

    async def _free(self, name: str) -> str:
        """A name in Qdrant for a new collection."""
        await self._require_free(name)
        numbers = [_number(name, each) for each in await self._fillings(name)]
        if numbers:  # left over, or another process is about to give it the name
            await asyncio.sleep(CREATION_SECONDS)
            await self._require_free(name)
        return f"{name}--{max(numbers, default=0) + 1}"

    async def _require_free(self, name: str) -> None:
        if await asked(self._client.collection_exists(name)):
            raise conflict(f"There is a collection {name!r} already.")

    async def _fillings(self, name: str) -> list[str]:
        """Names in Qdrant of all collections that have or had this name, or are to get it."""
        stored = (await asked(self._client.get_collections())).collections
        return [each.name for each in stored if _number(name, each.name)]

    async def store(self, name: str, stored_as: str, settings: Settings) -> None:
        """Create the collection in Qdrant, in place of one that was not finished."""
        await asked(self._client.delete_collection(stored_as))
        await self._store(name, stored_as, settings)

    async def _store(self, name: str, stored_as: str, settings: Settings) -> None:
        await asked(
            self._client.create_collection(
                stored_as,
                vectors_config={
                    DENSE: models.VectorParams(
                        size=settings.length, distance=models.Distance.COSINE
                    )
                },
                sparse_vectors_config={
                    KEYWORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)
                },
                metadata=asdict(settings),
            ),
            name,
        )
        indexed = {f"metadata.{key}": _SCHEMAS[kind] for key, kind in settings.fields.items()}
        for key, schema in ({"id": _SCHEMAS["keyword"]} | indexed).items():
            await asked(self._client.create_payload_index(stored_as, key, schema))

    async def point(self, name: str, stored_as: str) -> None:
        """Let the name mean this collection from now on."""
        create = models.CreateAlias(collection_name=stored_as, alias_name=name)
        operation = models.CreateAliasOperation(create_alias=create)
        await asked(self._client.update_collection_aliases([operation]))
        self._known.pop(name, None)

    async def note(self, collection: Collection, **changed: Any) -> Collection:
        """Change settings; what is known of the others may be old, and Qdrant keeps them."""
        await asked(
            self._client.update_collection(collection.stored_as, metadata=changed),
            collection.name,
        )
        self._known.pop(collection.name, None)
        return replace(collection, settings=replace(collection.settings, **changed))

    async def delete(self, name: str) -> None:
        """Raises NoCollection."""
        stored_as = await self.stored_as(name)
        left = await self._fillings(name)
        self._known.pop(name, None)
        for each in dict.fromkeys([stored_as, *left]):
            await asked(self._client.delete_collection(each))

    async def replace(self, old: Collection, new: Collection) -> None:
        """Give the name of a collection to another, and delete it."""
        if old.stored_as == old.name:  # of an earlier release: its name is no alias
            await asked(self._client.delete_collection(old.name))
        await self.point(old.name, new.stored_as)
        if old.stored_as != old.name:
            await asked(self._client.delete_collection(old.stored_as))

    async def count(self, name: str, filter_: models.Filter | None = None) -> int:
        """Points of a collection: passages, or documents by a filter for first passages."""
        found = await asked(self._client.count(name, count_filter=filter_, exact=True), name)
        return found.count


_NOTHING = Settings("none", 0, 0, {}, "", 0)
"""Of a collection of an earlier release."""


def internal(name: str) -> bool:
    """Whether this is a name in Qdrant only, which is none for clients."""
    return re.search(r"--\d+$", name) is not None


def _number(name: str, stored_as: str) -> int:
    """That of one filling of a collection; 0 for what is none of it."""
    number = re.fullmatch(rf"{re.escape(name)}--(\d+)", stored_as)
    return int(number[1]) if number else 0


def following(name: str, stored_as: str) -> str:
    """The name in Qdrant of the next filling of a collection."""
    return f"{name}--{_number(name, stored_as) + 1}"
