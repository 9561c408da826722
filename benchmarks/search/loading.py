"""Loading documents: the search API, and the same job in plain qdrant-client code."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
from qdrant_client import QdrantClient, models

from benchmarks.search.site import Site
from benchmarks.search.topics import LENGTH, documents

COUNT = 5000
"""So few that no index is built meanwhile."""
_BATCH = 128


def rates(found: Site) -> Iterator[Mapping[str, Any]]:
    """Documents per second of both, in turns, as other work on this machine comes and goes."""
    for turn in range(2):
        yield {"measured": "plain load", "documents_per_second": _rate(_plain, found, f"p{turn}")}
        yield {"measured": "load", "documents_per_second": _rate(_service, found, f"s{turn}")}


def _rate(load: Any, found: Site, name: str) -> float:
    found_documents = documents(COUNT)
    begun = time.perf_counter()
    load(found, name, found_documents)
    return COUNT / (time.perf_counter() - begun)


def _service(found: Site, name: str, found_documents: list[dict[str, Any]]) -> None:
    url = f"{found.url}/v1/collections"
    httpx.post(url, json={"name": name}, timeout=60).raise_for_status()
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in found_documents)
    httpx.put(f"{url}/{name}/documents", content=lines, timeout=600).raise_for_status()
    httpx.delete(f"{url}/{name}", timeout=60).raise_for_status()


def _plain(found: Site, name: str, found_documents: list[dict[str, Any]]) -> None:
    client = QdrantClient(
        found.qdrant, check_compatibility=False, cloud_inference=True, timeout=600
    )
    client.create_collection(
        name,
        vectors_config={"dense": models.VectorParams(size=LENGTH, distance=models.Distance.COSINE)},
        sparse_vectors_config={"keywords": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    with httpx.Client(timeout=60) as http:
        for start in range(0, COUNT, _BATCH):
            batch = found_documents[start : start + _BATCH]
            client.upsert(name, [*_points(http, found.embeddings, batch)], wait=True)
    client.delete_collection(name)


def _points(
    http: httpx.Client, url: str, batch: list[dict[str, Any]]
) -> Iterator[models.PointStruct]:
    body = {"model": "model", "input": [each["text"] for each in batch]}
    data = http.post(f"{url}/embeddings", json=body).raise_for_status().json()["data"]
    for document, answer in zip(batch, data, strict=True):
        words = models.Document(text=document["text"], model="qdrant/bm25")
        yield models.PointStruct(
            id=str(uuid5(NAMESPACE_URL, document["id"])),
            vector={"dense": answer["embedding"], "keywords": words},
            payload=document,
        )
