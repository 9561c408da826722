"""Speed and quality of the search API: `python -m benchmarks.stack.search`.

    python -m benchmarks.stack.search --documents 100000 [--qdrant http://127.0.0.1:6333]

Documents are generated for topics, so the right answers to a question are known. Without --qdrant a
double searches the vectors exactly, with numpy: the figures are then those of this API, not of
Qdrant. Redis (redis-server) and the embedding double are separate processes; only the measurement
of the cache uses it.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.stack.vectors import fused
from search_api.keywords import document_vector, query_vector
from tests.doubles.embeddings import embed
from tests.integration.local_gateway import free_ports

ROOT = Path(__file__).resolve().parents[2]
TOPIC_SIZE = 20
COMMON = [f"word{number}" for number in range(2000)]
CLIENTS = 16


def documents(count: int) -> list[dict[str, Any]]:
    """Texts of forty words: most of them common, eight of the twelve words of its topic."""
    chance = random.Random(1)
    return [
        {"id": str(number), "text": _text(chance, number // TOPIC_SIZE, 8, 32)}
        for number in range(count)
    ]


def questions(count: int, topics: int) -> list[tuple[str, int]]:
    """Questions of six words, four of them of a topic, with that topic."""
    chance = random.Random(2)
    return [
        (_text(chance, topic, 4, 2), topic)
        for topic in (chance.randrange(topics) for _ in range(count))
    ]


def _text(chance: random.Random, topic: int, own: int, common: int) -> str:
    words = chance.sample([f"t{topic}w{number}" for number in range(12)], own)
    words += chance.choices(COMMON, k=common)
    chance.shuffle(words)
    return " ".join(words)


@contextmanager
def program(*command: str, **environment: str) -> Iterator[None]:
    """A process that ends with the benchmark."""
    paths = f"{ROOT}:{ROOT / 'files/images/search_api'}"
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def service(qdrant_url: str | None, directory: Path) -> Iterator[str]:
    """The search API with its dependencies; its URL."""
    qdrant, redis, embeddings, port = map(str, free_ports(4))
    python = sys.executable
    with ExitStack() as stack:
        if not qdrant_url:
            stack.enter_context(program(python, "-m", "benchmarks.stack.vectors", qdrant))
        options = ["--port", redis, "--save", "", "--dir", str(directory)]
        stack.enter_context(program("redis-server", *options))
        stack.enter_context(program(python, "-m", "tests.doubles.embeddings", embeddings))
        command = ["-m", "uvicorn", "--factory", "search_api.main:app", "--no-access-log"]
        environment = {
            "QDRANT_URL": qdrant_url or f"http://127.0.0.1:{qdrant}",
            "REDIS_URL": f"redis://127.0.0.1:{redis}/0",
            "EMBEDDINGS_URL": f"http://127.0.0.1:{embeddings}/v1",
            "EMBEDDING_MODEL": "double",
            "SEARCH_COLLECTION": f"benchmark-{os.getpid()}",
        }
        stack.enter_context(program(python, *command, "--port", port, **environment))
        _wait(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"


def _wait(url: str) -> None:
    for _ in range(300):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("error: the search API did not start; its errors are above")


def fill(url: str, collection: Sequence[dict[str, Any]]) -> None:
    """Add all documents through the API."""
    begun = time.perf_counter()
    with httpx.Client(base_url=url, timeout=300) as client:
        for start in range(0, len(collection), 256):
            batch = {"documents": list(collection[start : start + 256])}
            client.put("/v1/documents", json=batch).raise_for_status()
    seconds = time.perf_counter() - begun
    print(f"filled: {len(collection)} documents in {seconds:.1f} s", flush=True)


async def load(url: str, asked: Sequence[str]) -> tuple[float, list[float], list[list[str]]]:
    """Send all questions with concurrent clients: requests per second, and seconds and ids of each
    answer."""
    waiting = iter(range(len(asked)))
    seconds, found = [0.0] * len(asked), [list[str]()] * len(asked)

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:
            for number in waiting:
                begun = time.perf_counter()
                answer = await http.post("/v1/search", json={"query": asked[number], "limit": 10})
                seconds[number] = time.perf_counter() - begun
                results = answer.raise_for_status().json()["results"]
                found[number] = [result["id"] for result in results]

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return len(asked) / (time.perf_counter() - begun), seconds, found


def quality(
    collection: Sequence[dict[str, Any]],
    asked: Sequence[tuple[str, int]],
    found: Sequence[Sequence[str]],
) -> None:
    """Compare with the topics, and with complete rankings."""
    precise = [
        sum(int(name) // TOPIC_SIZE == topic for name in names[:5]) / 5
        for (_, topic), names in zip(asked, found, strict=True)
    ]
    dense = [embed(document["text"]) for document in collection]
    sparse = [document_vector(document["text"]) for document in collection]
    recalled = []
    for (text, _), names in zip(asked, found, strict=True):
        exact = fused(dense, sparse, embed(text), query_vector(text))[:10]
        recalled.append(len({str(number) for number in exact} & set(names)) / 10)
    print(
        f"quality: precision@5 {statistics.mean(precise):.3f} by topic,"
        f" recall@10 {statistics.mean(recalled):.3f} against exact search"
        f" ({len(asked)} questions)",
        flush=True,
    )


def report(what: str, rate: float, seconds: Sequence[float]) -> None:
    """One line: requests per second, and their durations."""
    slow = statistics.quantiles(seconds, n=100)
    print(
        f"{what}: {rate:.0f} requests/s, median {slow[49] * 1000:.1f} ms,"
        f" p95 {slow[94] * 1000:.1f} ms ({CLIENTS} clients)",
        flush=True,
    )


def main() -> None:
    """Fill, ask, ask again, compare."""
    parser = argparse.ArgumentParser(description="Measure the search API")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--qdrant", help="URL of Qdrant; without it: exact search with numpy")
    options = parser.parse_args()
    collection = documents(options.documents)
    asked = questions(options.questions, options.documents // TOPIC_SIZE)
    where = options.qdrant or "exact search with numpy instead of Qdrant"
    print(f"vectors: {where}; embeddings: a double of 64 dimensions", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="llmhost-search-") as directory,
        service(options.qdrant, Path(directory)) as url,
    ):
        fill(url, collection)
        rate, seconds, found = asyncio.run(load(url, [text for text, _ in asked]))
        report("searched", rate, seconds)
        report("from the cache", *asyncio.run(load(url, [text for text, _ in asked]))[:2])
    quality(collection, asked[:100], found[:100])


if __name__ == "__main__":
    main()
