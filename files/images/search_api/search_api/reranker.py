"""Reranking of the best results by a model that reads query and text together."""

import asyncio
import logging
from collections.abc import Sequence

from search_api.client import Client, Failed
from search_api.embeddings import REFUSALS

_log = logging.getLogger(__name__)
CUTS = (1000, 250)
"""Characters of each text that the model gets if it refuses longer ones."""


class Reranker:
    """A cross-encoder behind `/v1/rerank`, with a time budget."""

    def __init__(self, client: Client, url: str, model: str, budget_seconds: float) -> None:
        self._client, self._url, self._model = client, f"{url}/rerank", model
        self._budget = budget_seconds

    async def scores(self, query: str, texts: Sequence[str]) -> list[float] | None:
        """One score a text, in order; None where the model fails or exceeds its budget."""
        if not texts:
            return []
        try:
            async with asyncio.timeout(self._budget):
                return await self._ask_shorter(query, texts)
        except (Failed, TimeoutError, ValueError, KeyError, TypeError) as error:
            _log.warning("results are not reranked: %r", error)
            return None

    async def _ask_shorter(
        self, query: str, texts: Sequence[str], cuts: Sequence[int] = CUTS
    ) -> list[float]:
        """If the model refuses the texts, ask with their beginnings."""
        try:
            return await self._ask(query, texts)
        except Failed as error:
            if error.status not in REFUSALS or not cuts:
                raise
        return await self._ask_shorter(query, [text[: cuts[0]] for text in texts], cuts[1:])

    async def _ask(self, query: str, texts: Sequence[str]) -> list[float]:
        body = {"model": self._model, "query": query, "documents": [*texts]}
        found = (await self._client.post(self._url, body))["results"]
        scores = {each["index"]: float(each["relevance_score"]) for each in found}
        return [scores[number] for number in range(len(texts))]
