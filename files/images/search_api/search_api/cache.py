"""Answers kept in Redis until they are old or a document changes."""

import hashlib
import logging
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

_log = logging.getLogger(__name__)


class Cache:
    """Kept answers; without Redis every search is computed.

    An answer is stored with the generation of its collection, and is valid as long as that is
    current: an answer computed from older documents never passes for a newer one.
    """

    def __init__(self, redis: Redis, seconds: int) -> None:
        self._redis, self._seconds = redis, seconds

    async def get(self, collection: str, question: bytes) -> tuple[bytes | None, bytes | None]:
        """A kept answer, and the collection's generation to keep a new one with; None without
        Redis."""
        if not self._seconds:
            return None, None
        try:
            names = (_generation(collection), _answer(collection, question))
            generation, kept = _bytes(await self._redis.mget(names))
        except (RedisError, OSError) as error:
            _log.warning("searching without the cache: %s", error)
            return None, None
        generation = generation or b"0"
        head, _, answer = kept.partition(b"\n")
        return (answer if head == generation else None), generation

    async def put(
        self, collection: str, question: bytes, generation: bytes | None, answer: bytes
    ) -> None:
        """Keep an answer."""
        if generation is None:
            return
        try:
            name = _answer(collection, question)
            await self._redis.set(name, generation + b"\n" + answer, ex=self._seconds)
        except (RedisError, OSError) as error:
            _log.warning("an answer was not cached: %s", error)

    async def forget(self, collection: str) -> None:
        """Documents have changed: no kept answer is valid any more."""
        if not self._seconds:
            return
        try:
            await self._redis.set(_generation(collection), uuid4().hex)
        except (RedisError, OSError) as error:
            _log.warning("kept answers may be old for %d s: %s", self._seconds, error)


def _generation(collection: str) -> str:
    return f"search:{collection}:generation"


def _answer(collection: str, question: bytes) -> str:
    return f"search:{collection}:{hashlib.blake2b(question, digest_size=16).hexdigest()}"


def _bytes(found: Any) -> list[bytes]:
    return [each or b"" for each in found]
