"""Embeddings and reranking by a service with OpenAI's interface."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from search_api.client import Client, Failed
from search_api.errors import EmbeddingsUnavailable, Overloaded
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
        """One vector a document, in order. Raises EmbeddingsUnavailable."""
        prefixed = [f"{self._model.document_prefix}{text}" for text in texts]
        batches = (prefixed[start : start + BATCH] for start in range(0, len(texts), BATCH))
        return [vector for batch in batches for vector in await self._batch(batch, _PATIENCE)]

    async def of_query(self, query: str) -> list[float]:
        """The vector of a query, asked for together with others that wait. Raises
        EmbeddingsUnavailable, Overloaded."""
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
        try:
            vectors = await self._batch([*batch])
        except EmbeddingsUnavailable as error:
            for future in batch.values():
                future.set_exception(error)
                future.exception()  # whoever asked may be gone
            return
        for future, vector in zip(batch.values(), vectors, strict=True):
            future.set_result(vector)

    async def _batch(self, texts: Sequence[str], patience: int = 1) -> list[list[float]]:
        try:
            body = {"model": self._model.name, "input": [*texts]}
            data = (await self._client.post(self._url, body, patience))["data"]
            vectors = [each["embedding"] for each in sorted(data, key=lambda each: each["index"])]
        except (Failed, KeyError, TypeError) as error:
            raise EmbeddingsUnavailable from error
        if len(vectors) != len(texts):
            raise EmbeddingsUnavailable
        return vectors

    async def length(self) -> int:
        """Numbers in a vector. The first answer takes as long as the model needs to load."""
        begun = time.monotonic()
        (vector,) = await self.of(["length"])
        MODEL_LOAD_SECONDS.labels(self._model.name).set(time.monotonic() - begun)
        return len(vector)
