"""What a site would write itself, to compare with: FastAPI and qdrant-client, two queries, and
fusion in Python.

`uvicorn --factory benchmarks.search.thin:app`
"""

import os
from collections import defaultdict
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, models


class Question(BaseModel):
    """System D's request."""

    query: str
    limit: int = 10
    score_threshold: float = 0.0


def app() -> FastAPI:
    """One route."""
    api, http = FastAPI(), httpx.AsyncClient(timeout=60)
    qdrant = AsyncQdrantClient(
        os.environ["QDRANT_URL"], check_compatibility=False, cloud_inference=True, timeout=60
    )
    collection = os.environ["SEARCH_COLLECTION"]

    async def ranked(query: Any, using: str) -> list[models.ScoredPoint]:
        found = await qdrant.query_points(collection, query, using=using, limit=100)
        return found.points

    @api.post("/search/hybrid")
    async def search(question: Question) -> dict[str, Any]:
        body = {"model": "model", "input": [question.query]}
        answer = await http.post(f"{os.environ['EMBEDDINGS_URL']}/embeddings", json=body)
        vector = answer.json()["data"][0]["embedding"]
        words = models.Document(text=question.query, model="qdrant/bm25")
        scores: dict[str, float] = defaultdict(float)
        points: dict[str, models.ScoredPoint] = {}
        for points_ in (await ranked(vector, "dense"), await ranked(words, "keywords")):
            for rank, point in enumerate(points_, start=1):
                scores[str(point.id)] += 1 / (60 + rank)
                points[str(point.id)] = point
        best = sorted(scores, key=lambda name: -scores[name])[: question.limit]
        kept = [name for name in best if scores[name] >= question.score_threshold]
        results = [{"score": scores[name], **(points[name].payload or {})} for name in kept]
        return {"results": results}

    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return api
