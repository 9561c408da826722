"""JSON over HTTP to the other services.

aiohttp, not httpx: a request takes a fifth of the processor time (`script/bench search.speed`).
"""

from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

_JSON = {"Content-Type": "application/json"}
_IDLE_SECONDS = 4
"""Shorter than what servers keep an idle connection for, which is 5 s in Qdrant."""


class Failed(Exception):
    """No answer, or not a good one."""

    def __init__(self, status: int = 0, content: bytes = b"") -> None:
        super().__init__(f"status {status}: {content[:200]!r}")
        self.status, self.content = status, content


class Client:
    """Connections that are kept; opened on the first request, in its event loop."""

    def __init__(self, timeout_seconds: float) -> None:
        self._seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: Mapping[str, Any], patience: int = 1) -> Any:
        """The answer of a request that can be repeated; `patience` multiplies the timeout. Raises
        Failed."""
        data, timeout = orjson.dumps(body), aiohttp.ClientTimeout(total=self._seconds * patience)
        try:
            try:
                return await self._post(url, data, timeout)
            except aiohttp.ServerDisconnectedError:  # the server closed an idle connection
                return await self._post(url, data, timeout)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Failed from error

    async def _post(self, url: str, data: bytes, timeout: aiohttp.ClientTimeout) -> Any:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector)
        async with self._session.post(url, data=data, headers=_JSON, timeout=timeout) as answer:
            content = await answer.read()
        if answer.status >= 300:
            raise Failed(answer.status, content)
        return orjson.loads(content)

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()
