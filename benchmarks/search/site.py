"""The search API and the services that it needs, as processes of this machine."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.integration.local_gateway import free_ports

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Site:
    """URLs of the processes."""

    url: str
    qdrant: str
    embeddings: str


@contextmanager
def program(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the benchmark."""
    paths = f"{ROOT}:{ROOT / 'files/images/search_api'}"
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def site(
    directory: Path,
    *,
    qdrant_url: str | None = None,
    embeddings: tuple[str, ...] = ("benchmarks.search.minilm",),
    workers: int = 1,
    **options: str,
) -> Iterator[Site]:
    """The service on Redis, Qdrant's core and an embedding model; options are its environment."""
    qdrant, redis, model, port = map(str, free_ports(4))
    python = sys.executable
    with ExitStack() as stack:
        if not qdrant_url:
            module = "tests.doubles.qdrant"
            stack.enter_context(program(python, "-m", module, qdrant, **options))
            qdrant_url = f"http://127.0.0.1:{qdrant}"
        save = ["--save", "", "--dir", str(directory)]
        stack.enter_context(program("redis-server", "--port", redis, *save))
        module, *arguments = embeddings
        port_option = ["--port", model] if module == "uvicorn" else [model]
        stack.enter_context(program(python, "-m", module, *port_option, *arguments))
        found = Site(f"http://127.0.0.1:{port}", qdrant_url, f"http://127.0.0.1:{model}/v1")
        environment = {
            "QDRANT_URL": qdrant_url,
            "REDIS_URL": f"redis://127.0.0.1:{redis}/0",
            "EMBEDDINGS_URL": found.embeddings,
            "EMBEDDING_MODEL": "model",
            "SEARCH_COLLECTION": f"benchmark-{os.getpid()}",
            **options,
        }
        command = ["-m", "uvicorn", "--factory", "search_api.main:app", "--no-access-log"]
        command += ["--port", port, "--workers", str(workers)]
        stack.enter_context(program(python, *command, **environment))
        wait(f"{found.url}/health")
        yield found


def wait(url: str) -> None:
    """Until a URL answers with 200."""
    for _ in range(600):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"error: {url} did not respond; its errors are above")
