"""Embeddings from a service that speaks OpenAI's interface."""

import time
from collections.abc import Sequence

import httpx

from search_api.errors import EmbeddingsUnavailable
from search_api.metrics import MODEL_LOAD_SECONDS

BATCH = 32
"""Texts in one request: an engine computes them together, in memory that it has reserved."""


class Embeddings:
    """Turns texts into vectors of one length."""

    def __init__(self, http: httpx.AsyncClient, url: str, model: str) -> None:
        self._http, self._url, self._model = http, f"{url}/embeddings", model

    async def of(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, in order. Raises EmbeddingsUnavailable."""
        batches = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
        return [vector for batch in batches for vector in await self._batch(batch)]

    async def _batch(self, texts: Sequence[str]) -> list[list[float]]:
        try:
            answer = await self._http.post(
                self._url, json={"model": self._model, "input": [*texts]}
            )
            data = answer.raise_for_status().json()["data"]
            vectors = [each["embedding"] for each in sorted(data, key=lambda each: each["index"])]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise EmbeddingsUnavailable from error
        if len(vectors) != len(texts):
            raise EmbeddingsUnavailable
        return vectors

    async def length(self) -> int:
        """Numbers in a vector. The first answer takes as long as the model needs to load."""
        begun = time.monotonic()
        (vector,) = await self.of(["length"])
        MODEL_LOAD_SECONDS.labels(self._model).set(time.monotonic() - begun)
        return len(vector)
