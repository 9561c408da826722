"""Answers to the questions of Cranfield, by each ranking alone and fused."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from benchmarks.search.cranfield import Cranfield, judge
from benchmarks.search.site import site

Row = Mapping[str, Any]
_BATCH = 128
_RANKINGS: Mapping[str, Row] = {
    "fused, expanded": {"expand": True},
    "fused": {},
    "meaning": {"mode": "meaning"},
    "words": {"mode": "words"},
}


def rows(collection: Cranfield, directory: Path, **options: str) -> Iterator[Row]:
    """Figures of each ranking: on even questions, which nothing was tuned on, and on all."""
    with (
        site(directory, SEARCH_CACHE_SECONDS="0", **options) as found,
        httpx.Client(base_url=found.url, timeout=600) as client,
    ):
        _fill(client, collection)
        for name, asked in _RANKINGS.items():
            answers = [_ids(client, question, asked) for question in collection.questions]
            yield from _judged(name, answers, collection)


def _judged(mode: str, answers: list[list[str]], collection: Cranfield) -> Iterator[Row]:
    # Questions count from 1.
    for name, part in (
        ("odd", slice(0, None, 2)),
        ("even", slice(1, None, 2)),
        ("all", slice(None)),
    ):
        quality = judge(answers[part], collection.relevant[part])
        yield {"ranking": mode, "questions": name, **asdict(quality)}


def _fill(client: httpx.Client, collection: Cranfield) -> None:
    documents = [{"id": name, "text": text} for name, text in collection.documents.items()]
    for start in range(0, len(documents), _BATCH):
        body = {"documents": documents[start : start + _BATCH]}
        client.put("/v1/documents", json=body).raise_for_status()


def _ids(client: httpx.Client, question: str, asked: Row) -> list[str]:
    body = {"query": question, "limit": 10, **asked}
    answer = client.post("/v1/search", json=body).raise_for_status().json()
    return [result["id"] for result in answer["results"]]
