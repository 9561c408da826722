"""Answers kept in Redis until they are old or a document changes."""

import hashlib
import json
import logging
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

_log = logging.getLogger(__name__)


class Cache:
    """A cache that is never in the way: without Redis every search is made anew.

    `redis` has to decode what it answers.
    """

    def __init__(self, redis: Redis, collection: str, seconds: int) -> None:
        self._redis, self._seconds = redis, seconds
        self._prefix = f"search:{collection}"

    async def key(self, *question: object) -> str | None:
        """Name of the answer to a question about the documents as they are; None without Redis.

        It has to be asked for before the search: an answer made of older documents then never
        gets a newer one's name.
        """
        try:
            generation = await self._redis.get(f"{self._prefix}:generation")
        except (RedisError, OSError) as error:
            _log.warning("searching without the cache: %s", error)
            return None
        asked = json.dumps([str(generation or ""), *question])
        return f"{self._prefix}:{hashlib.sha256(asked.encode()).hexdigest()}"

    async def get(self, key: str | None) -> str | None:
        """A kept answer."""
        try:
            kept = await self._redis.get(key) if key else None
        except (RedisError, OSError):
            return None
        return str(kept) if kept else None

    async def put(self, key: str | None, answer: str) -> None:
        """Keep an answer."""
        try:
            if key and self._seconds:
                await self._redis.set(key, answer, ex=self._seconds)
        except (RedisError, OSError) as error:
            _log.warning("an answer was not cached: %s", error)

    async def forget(self) -> None:
        """Documents have changed: no kept answer is given any more."""
        try:
            await self._redis.set(f"{self._prefix}:generation", uuid4().hex)
        except (RedisError, OSError) as error:
            _log.warning("kept answers may be old for %d s: %s", self._seconds, error)
