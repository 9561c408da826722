"""Calls of Qdrant, with its failures as errors of this service."""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import httpx
import orjson
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from search_api.errors import NoCollection, ServiceError, StoreUnavailable, invalid

Answer = TypeVar("Answer")


async def asked(question: Awaitable[Answer], collection: str = "") -> Answer:
    """The answer. Raises NoCollection, ServiceError for a request that Qdrant refuses, and
    StoreUnavailable."""
    try:
        return await question
    except UnexpectedResponse as error:
        raise _error(error.status_code or 0, error.content, collection) from error
    except (ApiException, httpx.HTTPError, OSError) as error:
        raise StoreUnavailable from error


class Queries:
    """Queries, without the models of qdrant-client: building and reading those takes longer than
    everything else that a search does in this process."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http, self._url = http, url.rstrip("/")

    async def ask(self, stored_as: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Points, the best first. Raises as `asked` does."""
        try:
            answer = await self._http.post(
                f"{self._url}/collections/{stored_as}/points/query",
                content=orjson.dumps(body),
                headers={"Content-Type": "application/json"},
            )
            if answer.is_success:
                found: list[dict[str, Any]] = orjson.loads(answer.content)["result"]["points"]
                return found
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable from error
        raise _error(answer.status_code, answer.content, stored_as)


def _error(status: int, content: bytes, collection: str) -> ServiceError:
    if status == 404:
        return NoCollection(collection)
    if status in (400, 422):
        return invalid(f"Qdrant refuses this: {content.decode(errors='replace')[:300]}")
    return StoreUnavailable()
