"""Reranking of the best results by a model that reads query and text together."""

import asyncio
import logging
from collections.abc import Sequence

import httpx
import orjson

_log = logging.getLogger(__name__)


class Reranker:
    """A cross-encoder behind `/v1/rerank`, with a time budget."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, model: str, budget_seconds: float
    ) -> None:
        self._http, self._url, self._model = http, f"{url}/rerank", model
        self._budget = budget_seconds

    async def scores(self, query: str, texts: Sequence[str]) -> list[float] | None:
        """One score a text, in order; None where the model fails or exceeds its budget."""
        try:
            async with asyncio.timeout(self._budget):
                return await self._ask(query, texts)
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as error:
            _log.warning("results are not reranked: %r", error)
            return None

    async def _ask(self, query: str, texts: Sequence[str]) -> list[float]:
        body = orjson.dumps({"model": self._model, "query": query, "documents": [*texts]})
        headers = {"Content-Type": "application/json"}
        answer = await self._http.post(self._url, content=body, headers=headers)
        found = orjson.loads(answer.raise_for_status().content)["results"]
        scores = {each["index"]: float(each["relevance_score"]) for each in found}
        return [scores[number] for number in range(len(texts))]
