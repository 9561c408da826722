"""Calls of Qdrant, with its failures as errors of this service."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import httpx
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from search_api.client import Client, Failed
from search_api.errors import NoCollection, ServiceError, StoreUnavailable, conflict, invalid

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

    def __init__(self, client: Client, url: str) -> None:
        self._client, self._url = client, url.rstrip("/")

    async def ask(
        self, stored_as: str, body: Mapping[str, Any], collection: str
    ) -> list[dict[str, Any]]:
        """Points, the best first. Raises as `asked` does."""
        return _points(await self._post(stored_as, "query", body, collection))

    async def ask_all(
        self, stored_as: str, bodies: Sequence[Mapping[str, Any]], collection: str
    ) -> list[list[dict[str, Any]]]:
        """The same for several queries in one request."""
        body = {"searches": [*bodies]}
        found = await self._post(stored_as, "query/batch", body, collection)
        return [_points(each) for each in found]

    async def _post(
        self, stored_as: str, path: str, body: Mapping[str, Any], collection: str
    ) -> Any:
        try:
            url = f"{self._url}/collections/{stored_as}/points/{path}"
            return (await self._client.post(url, body))["result"]
        except Failed as error:
            raise _error(error.status, error.content, collection) from error
        except (KeyError, TypeError) as error:
            raise StoreUnavailable from error


def _points(result: Any) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = result["points"]
    except (KeyError, TypeError) as error:
        raise StoreUnavailable from error
    return found


def _error(status: int, content: bytes, collection: str) -> ServiceError:
    if status == 404:
        return NoCollection(collection)
    if status == 409:
        return conflict(f"There is a collection {collection!r} already.")
    if status in (400, 413, 422):
        return invalid(f"Qdrant refuses this: {content.decode(errors='replace')[:300]}")
    return StoreUnavailable()
