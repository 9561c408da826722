"""System A as its site runs it: documents in, answers out, with a backend and a page in Node.js.

docling is a double; llama.cpp, both models and Chroma are real.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from testbed import minilm, smollm2
from testbed.engine import push_engine, root_archive
from testbed.image_registry import ImageRegistry
from testbed.real_docling import tokenizer
from testbed.stores import push_stores

Data = dict[str, Any]
_HERE = Path(__file__).parent
_NODE = ("nodejs", "base-files", "base-passwd")
_PORTS = {"backend": 3000, "web": 3001}
_SERVICES = {
    "DOCLING_URL": "http://docling:5001",
    "EMBEDDINGS_URL": "http://embeddings:8080",
    "LLAMACPP_URL": "http://llamacpp:8080",
    "CHROMA_URL": "http://chroma:8000",
}
_ROUTES = {
    "backend": [
        {"path": "/documents", "methods": ["POST"]},
        {"path": "/ask", "methods": ["POST"]},
    ],
    "web": [{"path": "/"}],
}
_HEALTH = (
    "fetch('http://127.0.0.1:{}/health').then((r) => process.exit(r.ok ? 0 : 1),"
    " () => process.exit(1))"
)


def rag_data(registry: ImageRegistry, directory: Path) -> Data:
    """Inventory data of the site. Raises PackageUnavailableError without its models."""
    engine, stores = push_engine(registry), push_stores(registry)
    return {
        "services": ["llamacpp", "embeddings", "docling", "chroma"],
        "llamacpp_image": engine,
        "embeddings_image": engine,
        "docling_image": stores,
        "chroma_image": stores,
        "chroma_open_files": 1024,
        "models": [_text(), _embedding(directory / "minilm.gguf"), tokenizer()],
        "apps": [_app(name, registry, directory) for name in _PORTS],
    }


def _text() -> Data:
    pins = {"source": str(smollm2.gguf()), "sha256": smollm2.SHA256, "context_tokens": 2048}
    return {"name": "text", "service": "llamacpp", "parameters": {"temperature": 0}, **pins}


def _embedding(path: Path) -> Data:
    sha256 = minilm.write_gguf(path)
    pins = {"source": str(path), "sha256": sha256, "context_tokens": minilm.CONTEXT_TOKENS}
    return {"name": "embedding", "service": "embeddings", "task": "embed", **pins}


def _app(name: str, registry: ImageRegistry, directory: Path) -> Data:
    context = directory / name
    shutil.copytree(_HERE / name, context, dirs_exist_ok=True)
    node = registry.push("node", "1", root_archive("node", _NODE, "trixie"))
    lines = [f"FROM {node}", "COPY . /srv/app", "USER 10001:10001"]
    lines += ['ENTRYPOINT ["node", "/srv/app/server.mjs"]', ""]
    (context / "Dockerfile").write_text("\n".join(lines))
    return {
        "name": name,
        "context": str(context.resolve()),
        "container_port": _PORTS[name],
        "port": 8000 + _PORTS[name],
        "health": ["node", "-e", _HEALTH.format(_PORTS[name])],
        "routes": _ROUTES[name],
        **(_BACKEND if name == "backend" else {}),
    }


_BACKEND = {
    "environment": _SERVICES,
    "needs": ["llamacpp", "embeddings", "docling", "chroma"],
}
