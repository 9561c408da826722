"""A store of Ollama as llmhost bakes it, without an image, and the double that serves it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from llmhost.options.model import Model
from llmhost.services.llama_server import stored_once
from llmhost.services.ollama_store import store_files
from testbed import tiny_embedder, tiny_model

ROOT = Path(__file__).parents[2]
Data = Mapping[str, Any]


def model(directory: Path, name: str, **more: Any) -> Model:
    """The tiny model, or with the task `embed` the tiny embedder, under a name."""
    embeds = more.get("task") == "embed"
    path = directory / ("embed.gguf" if embeds else "tiny.gguf")
    sha256 = tiny_embedder.write(path, "embed") if embeds else tiny_model.write(path)
    given = {"source": str(path), "sha256": sha256, "context_tokens": 512}
    return Model(name=name, service="ollama", **(given | more))


def bake(models: Sequence[Model], directory: Path) -> Path:
    """The store of these models. Weights on this machine are put where they are in an image."""
    root, context, store = (directory / name for name in ("root", "context", "store"))
    for each in stored_once(models):
        for place, source in each.places.items():
            target = Path(f"{root}{place}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(source).read_bytes())
    for each in models:
        if each.adapter:
            Path(f"{root}{each.adapter_path}").write_bytes(Path(each.adapter).read_bytes())
    for file in store_files(models):
        path = context / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data.replace(b"\t/models/", f"\t{root}/models/".encode()))
    script = ROOT / "files/images/ollama/bake"
    command = ["perl", str(script), str(context), str(store)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return store


@contextmanager
def served(store: Path, **environment: str) -> Iterator[httpx.Client]:
    """The double with this store and environment, and a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"OLLAMA_MODELS": str(store), "OLLAMA_HOST": f"127.0.0.1:{port}"}
    log = (store.parent / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.doubles.ollama", "serve"],
        cwd=ROOT,
        env={**os.environ, "HOME": str(store.parent), **variables, **environment},
        stderr=log,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            _wait(client)
            yield client
    finally:
        process.terminate()
        process.wait()
        log.close()


def starts(store: Path) -> int:
    """How often the double has started a runner."""
    return (store.parent / "log").read_text().count("loaded runners")


def _wait(client: httpx.Client) -> None:
    for _ in range(200):
        try:
            client.get("/")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the double of Ollama did not start")
