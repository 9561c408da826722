"""Services of test machines other than engines, and small files instead of large models.

`DOUBLES` lists the doubles: a double has the HTTP API of the service, and identifies itself if
possible.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from llmhost.services import catalogue
from testbed import tiny_embedder, tiny_model
from testbed.image_registry import ImageRegistry
from testbed.stores import push_stores

Data = dict[str, Any]

DOUBLES = {
    "docling": "it returns the text of plain documents and simple PDFs",
    "grafana": "its login and its data source, no pages",
    "ollama": "it finds, loads and unloads models, and says one sentence",
    "open_webui": "its login and its models, no interface",
    "qdrant": "Qdrant's own core behind a REST interface of ours",
    "vllm": "it reads its arguments and its files, and says one sentence",
}
"""Services that are not available here, and what their doubles do."""

# The limit in a machine inside a machine.
_OPEN_FILES = 4096

BACKEND = '''\
"""A site's own backend: asks what it stands on, and says what they said."""
import http.server, json, signal, sys, urllib.request
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
ASKED = {
    "ollama": "http://ollama:11434/api/version",
    "docling": "http://docling:5001/health",
    "chroma": "http://chroma:8000/api/v2/heartbeat",
}
class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        urls = {} if self.path == "/health" else ASKED
        said = {name: json.load(urllib.request.urlopen(url)) for name, url in urls.items()}
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
http.server.ThreadingHTTPServer(("", 8000), Backend).serve_forever()
'''


def options_of(service: str, registry: ImageRegistry, directory: Path) -> Data:
    """Options of a service that is no engine, without its name before them."""
    image = {"image": push_stores(registry)}
    if service in ("chroma", "qdrant"):
        return {**image, "open_files": _OPEN_FILES}
    names = catalogue()[service].options.secret_options.values()
    return {**image, **{option: _secret(directory / option) for option in names}}


def _secret(path: Path) -> str:
    """A reference to a secret of this site; that of an earlier run is kept."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(16))
    return f"file:{path.resolve()}"


def backend(registry: ImageRegistry, directory: Path) -> Data:
    """An app of a site, from a build context."""
    context = directory / "backend"
    context.mkdir(exist_ok=True)
    (context / "backend.py").write_text(BACKEND)
    lines = [f"FROM {push_stores(registry)}", "COPY backend.py /srv/backend.py"]
    lines += ["USER 10001:10001", 'ENTRYPOINT ["python3", "-u", "/srv/backend.py"]', ""]
    (context / "Dockerfile").write_text("\n".join(lines))
    health = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"
    return {
        "name": "backend",
        "context": str(context.resolve()),
        "container_port": 8000,
        "port": 8010,
        "health": ["python3", "-c", health],
        "needs": ["ollama", "docling", "chroma"],
        "routes": [{"path": "/ask"}],
    }


def small(model: Data, directory: Path) -> Data:
    """The model with its name, service and task, and a generated file instead of its weights."""
    kept = ("name", "service", "task", "resident", "parallel", "system_prompt", "parameters")
    told = {key: model[key] for key in kept if key in model}
    return {**told, **_file_for(model["service"], model.get("task", "generate"), model, directory)}


def _file_for(service: str, task: str, model: Data, directory: Path) -> Data:
    if service in ("vllm", "docling"):
        # docling identifies models by their names at the hub.
        place = str(model.get("source", "")).removeprefix("hf:") or f"example/{model['name']}"
        return repository(directory / "repositories" / place)
    if task == "generate":
        path = directory / "tiny.gguf"
        return _single(path, tiny_model.write(path), 512)
    kind: Literal["embed", "rerank"] = "embed" if task == "embed" else "rerank"
    path = directory / f"{kind}.gguf"
    return _single(path, tiny_embedder.write(path, kind), tiny_embedder.CONTEXT_TOKENS)


def _single(path: Path, sha256: str, context_tokens: int) -> Data:
    return {"source": str(path.resolve()), "sha256": sha256, "context_tokens": context_tokens}


def repository(home: Path) -> Data:
    """A directory as from the hub, without weights; two of its files are equal."""
    (home / "extra").mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    (home / "extra/tokenizer.json").write_text("{}")
    (home / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 2048}))
    for name in ("model-00001-of-00002", "model-00002-of-00002"):
        (home / f"{name}.safetensors").write_bytes(b"a double has no weights")
    files = [
        {"path": str(path.relative_to(home)), "sha256": _sha256(path)}
        for path in sorted(home.rglob("*"))
        if path.is_file()
    ]
    return {"source": str(home.resolve()), "files": files, "context_tokens": 1024}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


APPS: dict[str, tuple[Callable[[ImageRegistry, Path], Data], ...]] = {"rag-offline": (backend,)}
"""Data that a site adds to a profile."""
