"""The search API while Qdrant is killed and started again: no stored document is lost."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi.testclient import TestClient

from tests.integration.local_gateway import free_ports
from tests.unit.test_search_api import Site, embeddings_of, started

ROOT = Path(__file__).parents[2]


@contextmanager
def qdrant(port: int, storage: Path) -> Iterator[None]:
    """The server as a process that is killed in the end."""
    environment = {**os.environ, "QDRANT__STORAGE__STORAGE_PATH": str(storage)}
    command = [sys.executable, "-m", "tests.doubles.qdrant", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        while not _answers(port):
            assert process.poll() is None
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _line(number: int) -> str:
    return json.dumps({"id": str(number), "text": f"document number {number}"}) + "\n"


def _load(client: TestClient, first: int, count: int) -> dict[str, Any]:
    lines = "".join(map(_line, range(first, first + count)))
    answer = client.put("/v1/collections/documents/documents", content=lines)
    found: dict[str, Any] = answer.json()
    return found


def _stored(site: Site) -> dict[str, str]:
    """Text of each document, as Qdrant has it."""
    url = f"{site.qdrant_url}/collections/documents/points/scroll"
    found: dict[str, Any] = httpx.post(url, json={"limit": 1000}).json()["result"]
    return {point["payload"]["id"]: point["payload"]["text"] for point in found["points"]}


def test_no_stored_document_is_lost_when_qdrant_is_killed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    site = Site(f"http://127.0.0.1:{port}")
    with ExitStack() as stack:
        site.embeddings_url = stack.enter_context(embeddings_of(site))
        with qdrant(port, tmp_path):
            client = stack.enter_context(started(site.search()))
            assert _load(client, 0, 150) == {"lines": 150}
        error = _load(client, 150, 50)["error"]
        assert (error["type"], error["stored_lines"]) == ("store_unavailable", 0)
        answer = client.post("/v1/search", json={"query": "another"})
        assert answer.json()["error"]["type"] == "store_unavailable"
        with qdrant(port, tmp_path):
            assert _load(client, 150, 50) == {"lines": 50}
            assert client.get("/v1/collections/documents").json()["documents"] == 200
            assert _stored(site) == {str(n): f"document number {n}" for n in range(200)}
