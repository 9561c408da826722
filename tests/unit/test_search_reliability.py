"""The search API while other services are killed, hang and come back: no stored document is lost,
errors have a type, and memory does not grow."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from search_api import embeddings
from tests.integration.local_gateway import free_ports
from tests.unit.test_search_api import DOCUMENTS, Site, embeddings_of, site, started  # noqa: F401

ROOT = Path(__file__).parents[2]


@contextmanager
def program(url: str, *command: str, **environment: str) -> Iterator[int]:
    """A Python program that answers at a URL, and is killed in the end with its children; its
    number."""
    paths = f"{ROOT}:{ROOT / 'files/images/search_api'}"
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        start_new_session=True,
    )
    try:
        while not _answers(url):
            assert process.poll() is None
            time.sleep(0.05)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def qdrant(port: int, storage: Path) -> AbstractContextManager[int]:
    """The server."""
    url = f"http://127.0.0.1:{port}/readyz"
    environment = {"QDRANT__STORAGE__STORAGE_PATH": str(storage)}
    return program(url, "tests.doubles.qdrant", str(port), **environment)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def _line(number: int) -> str:
    return json.dumps({"id": str(number), "text": f"document number {number}"}) + "\n"


def _load(client: TestClient, first: int, count: int) -> dict[str, Any]:
    lines = "".join(map(_line, range(first, first + count)))
    answer = client.put("/v1/collections/documents/documents", content=lines)
    found: dict[str, Any] = answer.json()
    return found


def _stored(site: Site) -> dict[str, str]:  # noqa: F811
    """Text of each document, as Qdrant has it."""
    url = f"{site.qdrant_url}/collections/documents/points/scroll"
    found: dict[str, Any] = httpx.post(url, json={"limit": 1000}).json()["result"]
    return {point["payload"]["id"]: point["payload"]["text"] for point in found["points"]}


def test_no_stored_document_is_lost_when_qdrant_is_killed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    site = Site(f"http://127.0.0.1:{port}")  # noqa: F811
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


def _ends_at(running: ExitStack, port: int, points: int) -> None:
    """Kill Qdrant as soon as it has so many points."""
    url = f"http://127.0.0.1:{port}/collections/documents/points/count"
    while httpx.post(url, json={}).json()["result"]["count"] < points:
        time.sleep(0.001)
    running.close()


def test_qdrant_that_is_killed_in_the_middle_of_a_load_loses_no_reported_line(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    site = Site(f"http://127.0.0.1:{port}")  # noqa: F811
    wanted = {str(n): f"document number {n}" for n in range(900)}
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        site.embeddings_url = stack.enter_context(embeddings_of(site))
        running = ExitStack()
        running.enter_context(qdrant(port, tmp_path))
        client = stack.enter_context(started(site.search()))
        killed = threads.submit(_ends_at, running, port, 300)
        error = _load(client, 0, 900)["error"]
        killed.result()
        stored = error["stored_lines"]
        assert error["type"] == "store_unavailable" and 256 <= stored < 900
        with qdrant(port, tmp_path):
            reported = [*wanted.items()][:stored]
            assert dict(reported).items() <= _stored(site).items()
            lines = "".join(map(_line, range(900)))
            path = "/v1/collections/documents/documents"
            answer = client.put(path, params={"skip": stored}, content=lines)
            assert answer.json() == {"lines": 900}
            assert _stored(site) == wanted


def test_embeddings_that_fail_in_the_middle_of_a_load_lose_no_stored_document(
    site: Site,  # noqa: F811
) -> None:
    with started(site.search()) as client:
        site.fails_after = 2  # each batch of 128 is four requests
        error = _load(client, 0, 400)["error"]
        assert (error["type"], error["stored_lines"]) == ("embeddings_unavailable", 0)
        site.fails_after = 6
        error = _load(client, 0, 400)["error"]
        assert (error["type"], error["stored_lines"]) == ("embeddings_unavailable", 128)
        assert _stored(site) == {str(n): f"document number {n}" for n in range(128)}
        site.fails_after = None
        lines = "".join(map(_line, range(400)))
        path = "/v1/collections/documents/documents"
        answer = client.put(path, params={"skip": 128}, content=lines)
        assert answer.json() == {"lines": 400}
        assert _stored(site) == {str(n): f"document number {n}" for n in range(400)}


def test_redis_that_fails_in_the_middle_of_a_load_hinders_nothing(site: Site) -> None:  # noqa: F811
    with started(site.search()) as client:
        assert _load(client, 0, 130) == {"lines": 130}
        site.redis.connected = False
        assert _load(client, 130, 130) == {"lines": 130}
        answer = client.post("/v1/search", json={"query": "number 200"})
        assert answer.json()["results"][0]["id"] == "200"
        assert len(_stored(site)) == 260


@contextmanager
def service(site: Site, directory: Path, **options: str) -> Iterator[tuple[str, int]]:  # noqa: F811
    """The service as a process, and its number."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = {
        "QDRANT_URL": site.qdrant_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "EMBEDDINGS_URL": site.embeddings_url,
        "EMBEDDING_MODEL": "double",
        "SEARCH_TIMEOUT_SECONDS": "2",
        "TMPDIR": str(directory),
        **options,
    }
    command = ["uvicorn", "--factory", "search_api.main:app", "--port", str(port)]
    with program(f"{url}/health", *command, **environment) as process:
        yield url, process


def _count(site: Site) -> int:  # noqa: F811
    url = f"{site.qdrant_url}/collections/documents/points/count"
    return int(httpx.post(url, json={}).json()["result"]["count"])


def test_qdrant_that_hangs_in_the_middle_of_a_load_loses_no_reported_line(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    site = Site(f"http://127.0.0.1:{port}")  # noqa: F811
    lines = "".join(map(_line, range(900)))
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        site.embeddings_url = stack.enter_context(embeddings_of(site))
        store = stack.enter_context(qdrant(port, tmp_path / "qdrant"))
        url, _ = stack.enter_context(service(site, tmp_path))
        path = f"{url}/v1/collections/documents/documents"
        loading = threads.submit(httpx.put, path, content=lines, timeout=60)
        while _count(site) < 300:
            time.sleep(0.001)
        os.kill(store, signal.SIGSTOP)
        try:
            error = loading.result().json()["error"]
            begun = time.monotonic()
            found = httpx.post(f"{url}/v1/search", json={"query": "number"}, timeout=60)
            assert found.json()["error"]["type"] == "store_unavailable"
            assert time.monotonic() - begun < 20
        finally:
            os.kill(store, signal.SIGCONT)
        assert error["type"] == "store_unavailable" and 256 <= error["stored_lines"] < 900
        again = httpx.put(path, params={"skip": error["stored_lines"]}, content=lines, timeout=60)
        assert again.json() == {"lines": 900}
        assert _stored(site) == {str(n): f"document number {n}" for n in range(900)}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_redis_that_hangs_hinders_no_search(site: Site, tmp_path: Path) -> None:  # noqa: F811
    (port,) = free_ports(1)
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not _listens(port):
            time.sleep(0.02)
        with service(site, tmp_path, REDIS_URL=f"redis://127.0.0.1:{port}/0") as (url, _):

            def cached() -> str:
                answer = httpx.post(f"{url}/v1/search", json={"query": "a"}, timeout=30)
                assert answer.status_code == 200, answer.text
                return answer.headers["X-Search-Cache"]

            assert [cached(), cached()] == ["miss", "hit"]
            os.kill(redis.pid, signal.SIGSTOP)
            assert cached() == "miss"
            os.kill(redis.pid, signal.SIGCONT)
            while cached() == "miss":
                pass
    finally:
        redis.kill()
        redis.wait()


def test_embeddings_that_hang_fill_no_memory_with_queries(
    site: Site,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embeddings, "WAITING", 2)
    hanging = DOCUMENTS[0]["text"]
    with started(site.search()) as client, ThreadPoolExecutor(8) as threads:

        def ask(query: str) -> Any:
            return client.post("/v1/search", json={"query": query})

        site.documents_may_pass.clear()
        asked = [threads.submit(ask, hanging)]
        time.sleep(0.2)
        asked.append(threads.submit(ask, hanging))
        time.sleep(0.2)
        asked += [threads.submit(ask, query) for query in ("third", "fourth")]
        time.sleep(0.2)
        refused = ask("fifth")
        assert refused.json()["error"]["type"] == "overloaded"
        assert refused.headers["Retry-After"] == "1"
        site.documents_may_pass.set()
        assert [each.result().status_code for each in asked] == [200] * 4
        assert ask("fifth").status_code == 200


def test_load_that_waits_for_embeddings_fills_no_memory(site: Site, tmp_path: Path) -> None:  # noqa: F811
    line = json.dumps({"id": "cat", "text": DOCUMENTS[0]["text"]}).encode()
    chunk, size = line + b" " * 100_000 + b"\n", 300_000_000
    site.documents_may_pass.clear()
    with service(site, tmp_path, SEARCH_TIMEOUT_SECONDS="30") as (url, process):
        before = _resident_mib(process)
        at = httpx.URL(url)
        with socket.create_connection((at.host, at.port or 80), timeout=2) as connection:
            head = f"PUT /v1/collections/documents/documents HTTP/1.1\r\nContent-Length: {size}\r\n"
            connection.sendall(f"{head}Host: x\r\n\r\n".encode())
            sent = 0
            with pytest.raises(TimeoutError):
                while sent < size:
                    sent += connection.send(chunk)
            # A batch of 128 lines, and what the kernel keeps.
            assert 0 < sent < 60_000_000
            assert _resident_mib(process) - before < 60
            assert httpx.get(f"{url}/v1/collections").json() == {"collections": ["documents"]}
        site.documents_may_pass.set()


def _resident_mib(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_metrics_are_those_of_all_processes(site: Site, tmp_path: Path) -> None:  # noqa: F811
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = ["uvicorn", "--factory", "search_api.main:app", "--port", str(port), "--workers", "2"]
    environment = {
        "QDRANT_URL": site.qdrant_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "EMBEDDINGS_URL": site.embeddings_url,
        "EMBEDDING_MODEL": "double",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "TMPDIR": str(tmp_path),
    }
    with program(f"{url}/health", *command, **environment):
        statuses = [
            httpx.post(f"{url}/v1/search", json={"query": str(n)}).status_code for n in range(40)
        ]
        metrics = httpx.get(f"{url}/metrics").text
    counted = re.findall(r"^search_requests_total\{.*\} (\d+)", metrics, re.M)
    assert sum(map(int, counted)) == len(statuses) == 40
    assert {*statuses} <= {200, 503}  # a process may still be getting ready
    assert "gpu_memory_usage_bytes" in metrics
