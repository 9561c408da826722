"""A site with vLLM, and how its container would be started, without a container."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from llmhost.inventory.reader import read_settings
from llmhost.stack.project import compose_project
from tests.integration.local_gateway import free_ports

Data = dict[str, Any]

DOUBLE = Path(__file__).parents[1] / "doubles/vllm.py"

NAME, CACHE = "writer", "/var/cache/vllm"


def hub_directory(home: Path) -> Data:
    """A model of vLLM from a directory as from the hub; without files in it, one for the double."""
    if not home.is_dir():
        home.mkdir(parents=True)
        (home / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
        (home / "model.safetensors").write_bytes(b"a double has no weights")
    files = [
        {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(home.iterdir())
    ]
    return {"name": NAME, "service": "vllm", "source": str(home), "files": files}


def site_of(model: Data, **options: Any) -> Data:
    """An inventory with vLLM alone; it has the context of the recordings."""
    clients = [{"name": "test", "sha256": "ab" * 32}]
    models = [{**model, "context_tokens": 512, "parallel": 4}]
    data: Data = {"services": ["vllm"], "models": models, "api_clients": clients}
    return data | {f"vllm_{name}": value for name, value in options.items()}


def started_as(data: Data, directory: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The rendered command and environment, with places of this machine instead of the image's."""
    (model,) = data["models"]
    service = yaml.safe_load(compose_project(read_settings(data)).services["vllm"])["services"]
    places = {f"/models/{NAME}": model["source"], "8000": str(port), "0.0.0.0": "127.0.0.1"}
    for each in model.get("adapters", ()):
        name = each["name"]
        places[f"{name}=/models/{NAME}.adapters/{name}"] = f"{name}={each['source']}"
    command = [places.get(word, word) for word in service["vllm"]["command"]]
    variables = {
        name: value.replace(CACHE, str(directory / "cache"))
        for name, value in service["vllm"]["environment"].items()
    }
    return command, {"PATH": os.environ["PATH"], **variables}


@contextmanager
def double(
    directory: Path, runner: str, variables: dict[str, str] | None = None, **more: Any
) -> Iterator[str]:
    """The double with the rendered command and environment, and further variables; yields its URL.
    `more` are further keys of the model."""
    (port,) = free_ports(1)
    task = "generate" if runner == "generate" else "embed"
    model = hub_directory(directory / f"writer-{runner}") | {"task": task, **more}
    command, environment = started_as(site_of(model), directory, port)
    environment |= variables or {}
    arguments = [sys.executable, str(DOUBLE), "serve", *command]
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            while not healthy(url):
                assert process.poll() is None, "the double has ended"
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
