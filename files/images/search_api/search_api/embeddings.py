"""Embeddings and reranking by a service with OpenAI's interface."""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from search_api.client import Client, Failed
from search_api.errors import EmbeddingsUnavailable, Overloaded, ServiceError, invalid
from search_api.metrics import MODEL_LOAD_SECONDS

BATCH = 32
"""Texts in one request: an engine computes them together, in memory that it has reserved."""
_PATIENCE = 10
"""Times the timeout of a query: documents are long, and nobody waits at a screen for them."""
REQUESTS = 2
"""Requests for queries at a time. Queries that arrive meanwhile share the next request: none waits
for more than one request of others."""
WAITING = 1024
"""Queries that wait; more are refused instead of filling the memory."""
_TOO_LONG = {
    400: re.compile(rb"too (large|long)|context|exceeds|maximum", re.IGNORECASE),
    413: re.compile(b""),
    500: re.compile(b"too large"),
}
"""What a service says, by status, about a text that is too long; 500 is llama.cpp's."""
REFUSALS = (*_TOO_LONG,)
"""Statuses with which services refuse texts."""


@dataclass(frozen=True)
class EmbeddingModel:
    """The model's name, and what it wants before a query and before a document."""

    name: str
    query_prefix: str = ""
    document_prefix: str = ""


@dataclass
class _Waiting:
    """Queries that are not sent yet; the same text is sent once."""

    texts: dict[str, asyncio.Future[list[float]]] = field(default_factory=dict)
    requests: set[asyncio.Task[None]] = field(default_factory=set)


class Embeddings:
    """Turns texts into vectors of one length."""

    def __init__(self, client: Client, url: str, model: EmbeddingModel) -> None:
        self._client, self._url, self._model = client, f"{url}/embeddings", model
        self._waiting = _Waiting()

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model.name

    async def of(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a document, in order. Raises EmbeddingsUnavailable, and ServiceError for a
        text that is too long."""
        prefixed = [f"{self._model.document_prefix}{text}" for text in texts]
        vectors = list[list[float]]()
        for start in range(0, len(texts), BATCH):
            for found in await self._each(prefixed[start : start + BATCH], _PATIENCE):
                if isinstance(found, ServiceError):
                    raise found
                vectors.append(found)
        return vectors

    async def of_query(self, query: str) -> list[float]:
        """The vector of a query, asked for together with others that wait. Raises
        EmbeddingsUnavailable, Overloaded, and ServiceError for a query that is too long."""
        text = f"{self._model.query_prefix}{query}"
        waiting = self._waiting
        if text not in waiting.texts:
            if len(waiting.texts) >= WAITING:
                raise Overloaded
            waiting.texts[text] = asyncio.get_running_loop().create_future()
        future = waiting.texts[text]
        self._send()
        return await asyncio.shield(future)

    def _send(self) -> None:
        waiting = self._waiting
        if not waiting.texts or len(waiting.requests) >= REQUESTS:
            return
        batch = {text: waiting.texts.pop(text) for text in [*waiting.texts][:BATCH]}
        request = asyncio.create_task(self._answer(batch))
        waiting.requests.add(request)
        request.add_done_callback(self._answered)

    def _answered(self, request: asyncio.Task[None]) -> None:
        self._waiting.requests.discard(request)
        self._send()

    async def _answer(self, batch: dict[str, asyncio.Future[list[float]]]) -> None:
        found = await self._each([*batch])
        for future, vector in zip(batch.values(), found, strict=True):
            if isinstance(vector, ServiceError):
                future.set_exception(vector)
                future.exception()  # the client may be gone
            else:
                future.set_result(vector)

    async def _each(
        self, texts: Sequence[str], patience: int = 1
    ) -> Sequence[list[float] | ServiceError]:
        """For each text a vector, or why there is none. If the service refuses the texts together,
        it gets one half, then the other."""
        try:
            return await self._batch(texts, patience)
        except Failed as error:
            if len(texts) == 1 or error.status not in REFUSALS:
                return [_reason(texts[0], error)] * len(texts)
        half = len(texts) // 2
        found = [*await self._each(texts[:half], patience)]
        if isinstance(found[-1], EmbeddingsUnavailable):
            return found + [found[-1]] * (len(texts) - half)
        return [*found, *await self._each(texts[half:], patience)]

    async def _batch(self, texts: Sequence[str], patience: int) -> list[list[float]]:
        body = {"model": self._model.name, "input": [*texts]}
        answer = await self._client.post(self._url, body, patience)
        try:
            data = sorted(answer["data"], key=lambda each: each["index"])
            vectors = [each["embedding"] for each in data]
        except (KeyError, TypeError) as error:
            raise Failed from error
        if len(vectors) != len(texts):
            raise Failed
        return vectors

    async def length(self) -> int:
        """Numbers in a vector. The first answer takes as long as the model needs to load."""
        begun = time.monotonic()
        (vector,) = await self.of(["length"])
        MODEL_LOAD_SECONDS.labels(self._model.name).set(time.monotonic() - begun)
        return len(vector)


def _reason(text: str, failed: Failed) -> ServiceError:
    """Why the service does not answer for this text."""
    said = failed.content[:300]
    error: ServiceError = EmbeddingsUnavailable()
    if failed.status in REFUSALS and _TOO_LONG[failed.status].search(said):
        begins = f"The text that begins with {text[:60]!r}"
        error = invalid(f"{begins} is longer than the embedding model reads.")
    elif failed.status == 400:
        error = invalid(f"The embedding service refuses this: {said.decode(errors='replace')}")
    error.__cause__ = failed
    return error
