"""Speed of the search API: `python -m benchmarks.search.speed [--documents 100000]`.

Vectors of queries cost nothing, so the figures are those of the API, of Qdrant's core and of wrk,
which share the processors. The same questions go to a thin API as a site would write it, in the
same run. Needs wrk and redis-server.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.search.loading import rates
from benchmarks.search.processes import (
    busy_processors,
    clock,
    memory_mib,
    processor_ms,
    processor_seconds,
)
from benchmarks.search.site import Site, program, site, wait
from benchmarks.search.topics import documents, embed, questions
from search_api.config import Ranking
from tests.integration.local_gateway import free_ports

CLIENTS = 16
_SCRIPT = """
local bodies = {{}}
for line in io.lines("{bodies}") do bodies[#bodies + 1] = line end
local next = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  next = next % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[next])
end
done = function(summary, latency, requests)
  for _, part in pairs({{50, 95}}) do
    io.write(string.format("p%d=%f\\n", part, latency:percentile(part) / 1000))
  end
end
"""
Row = Mapping[str, Any]


def load(url: str, bodies: list[dict[str, Any]], directory: Path, seconds: int) -> Row:
    """Requests per second and durations, with all questions in turn."""
    lines, script = directory / "bodies", directory / "script.lua"
    lines.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    script.write_text(_SCRIPT.format(bodies=lines))
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    begun, clocked = processor_seconds(), clock()
    children = os.times().children_user + os.times().children_system
    run = subprocess.run(
        [*command, "-s", str(script), url], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in run.stdout or "Socket errors" in run.stdout:
        raise SystemExit(f"error: some requests failed:\n{run.stdout}")
    children = os.times().children_user + os.times().children_system - children
    own = sum(processor_seconds().values()) - sum(begun.values()) + children
    return {
        "requests_per_second": float(_figure(r"Requests/sec:\s+([\d.]+)", run.stdout)),
        "processor_ms_per_request": processor_ms(
            begun, int(_figure(r"(\d+) requests in", run.stdout))
        ),
        "p50_ms": float(_figure(r"p50=([\d.]+)", run.stdout)),
        "p95_ms": float(_figure(r"p95=([\d.]+)", run.stdout)),
        # Of other programs; they take from the rate what the machine has not.
        "processors_of_others": round(busy_processors(clocked) - own / seconds, 2),
    }


def _figure(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, text
    return found[1]


def load_documents(found: Site, name: str, count: int) -> Iterator[Row]:
    """Load all documents as lines, and wait for the index, unless they are there already."""
    if httpx.get(f"{found.url}/v1/collections/{name}").json().get("documents") == count:
        return
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in documents(count))
    begun = time.perf_counter()
    url = f"{found.url}/v1/collections/{name}/documents"
    httpx.put(url, content=lines, timeout=3600).raise_for_status()
    loaded = time.perf_counter()
    yield {"measured": "load", "documents_per_second": count / (loaded - begun)}
    time.sleep(3)  # the index is built when nothing has changed for a while
    collection = f"{found.qdrant}/collections/{name}"
    while httpx.get(collection, timeout=3600).json()["result"]["status"] != "green":
        time.sleep(1)
    yield {"measured": "index", "seconds": time.perf_counter() - loaded}


def recall(found: Site, name: str, asked: list[str], ef: int) -> float:
    """Share of the ten nearest that the index finds, against exact search."""
    url, shares = f"{found.qdrant}/collections/{name}/points/query", []
    with httpx.Client(timeout=60) as client:
        for text in asked:
            body = {"query": embed(text).tolist(), "using": "dense", "limit": 10}
            ids = []
            for params in ({"exact": True}, {"hnsw_ef": ef}):
                answer = client.post(url, json={**body, "params": params}).raise_for_status()
                ids.append({point["id"] for point in answer.json()["result"]["points"]})
            shares.append(len(ids[0] & ids[1]) / 10)
    return sum(shares) / len(shares)


def repeated(found: Site, asked: list[str], depth: int = 200) -> float:
    """Share of results that a reader of page after page gets again, in place of another result."""
    again = 0
    with httpx.Client(base_url=found.url, timeout=60) as client:
        for text in asked:
            seen, offset = list[str](), 0
            while offset is not None and offset < depth:
                body = {"query": text, "limit": 10, "offset": offset}
                answer = client.post("/v1/search", json=body).raise_for_status().json()
                seen += [result["id"] for result in answer["results"]]
                offset = answer["next_offset"]
            again += len(seen) - len({*seen})
    return again / (depth * len(asked))


@contextmanager
def thin(found: Site, name: str) -> Iterator[str]:
    """The API to compare with."""
    (port,) = free_ports(1)
    environment = {
        "QDRANT_URL": found.qdrant,
        "EMBEDDINGS_URL": found.embeddings,
        "SEARCH_COLLECTION": name,
    }
    command = ["-m", "uvicorn", "--factory", "benchmarks.search.thin:app", "--no-access-log"]
    with program(sys.executable, *command, "--port", str(port), **environment):
        wait(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/search/hybrid"


def measure(
    count: int,
    workers: int,
    seconds: int,
    directory: Path,
    storage: Path,
    with_model: bool,
    briefly: bool,
) -> Iterator[Row]:
    """One row a measurement; all but the last without the cache."""
    name = "speed"
    model = ("uvicorn", "benchmarks.search.topics:app", "--no-access-log")
    # Building the index stops the core (tests/doubles/qdrant).
    options = {"SEARCH_COLLECTION": name, "SEARCH_TIMEOUT_SECONDS": "600"}
    options["SEARCH_CACHE_SECONDS"] = "0"
    asked = questions(20_000, count)
    options["QDRANT__STORAGE__STORAGE_PATH"] = str(storage)
    with site(directory, embeddings=model, workers=workers, **options) as found:
        yield from load_documents(found, name, count)
        if not briefly:
            share = recall(found, name, asked[:200], Ranking.hnsw_ef)
            yield {"measured": "recall", "at_10": share}
            yield {"measured": "200 results by page", "repeated": repeated(found, asked[:20])}
        bodies = [{"query": text, "limit": 10} for text in asked]
        # In turns, as other work on this machine comes and goes.
        for _ in range(2):
            with thin(found, name) as url:
                yield {"measured": "thin", **load(url, bodies, directory, seconds)}
            yield {
                "measured": "search",
                **load(f"{found.url}/v1/search", bodies, directory, seconds),
            }
        expanded = [{**body, "expand": True} for body in bodies]
        rate = load(f"{found.url}/v1/search", expanded, directory, seconds)
        yield {"measured": "expanded search", **rate}
        if not briefly:
            yield from rates(found)
        yield {"measured": "memory", "mib": {k: round(v) for k, v in memory_mib().items()}}
        if with_model:
            computed = ("benchmarks.search.minilm", "--no-cache")
            with site(directory, embeddings=computed, qdrant_url=found.qdrant, **options) as real:
                rate = load(f"{real.url}/v1/search", bodies, directory, seconds)
                yield {"measured": "search with MiniLM", **rate}
        options["SEARCH_CACHE_SECONDS"] = "300"
        few = bodies[:50]
        with site(
            directory, embeddings=model, workers=workers, qdrant_url=found.qdrant, **options
        ) as cached:
            load(f"{cached.url}/v1/search", few, directory, 2)
            yield {"measured": "cache", **load(f"{cached.url}/v1/search", few, directory, seconds)}


def main() -> None:
    """Lines as they are measured, or with --json all at the end."""
    parser = argparse.ArgumentParser(description="Measure the speed of the search API")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--model", action="store_true", help="also compute real embeddings")
    parser.add_argument("--storage", type=Path, help="keep the collection there for further runs")
    parser.add_argument("--brief", action="store_true", help="only requests per second")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = list[Row]()
    with tempfile.TemporaryDirectory(prefix="llmhost-search-") as directory:
        storage = (options.storage or Path(directory, "qdrant")).absolute()
        wanted = (options.documents, options.workers, options.seconds, Path(directory), storage)
        for row in measure(*wanted, options.model, options.brief):
            rows.append(row)
            if not options.json:
                print("  ".join(f"{k}={v}" for k, v in row.items()), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
