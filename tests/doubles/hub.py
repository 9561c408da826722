"""A double of two hubs, Hugging Face and Ollama's library: what their interfaces say of models.

It serves what a test gives it, in the shape of https://huggingface.co/docs/hub/api and of the
distribution specification's manifests; of real models it knows nothing.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "ab" * 20


@dataclass
class Hub:
    """`files` by `PUBLISHER/REPOSITORY/FILE`, of which those in `large` are told with a hash;
    `cards` are front matters, `manifests` Ollama's. `asked` is what was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    cards: dict[str, dict[str, object]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    manifests: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, token: str) -> tuple[int, bytes]:
        parts = path.strip("/").split("/")
        repository = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if repository in self.gated and token != "Bearer good":
            return 401, b"Access to this model is restricted"
        if parts[:2] == ["api", "models"]:
            return self._model(repository, parts[5])
        if parts[0] == "v2" and "/".join(parts[1:]) in self.manifests:
            return 200, self.manifests["/".join(parts[1:])]
        if (
            parts[2:4] == ["resolve", COMMIT]
            and f"{repository}/{'/'.join(parts[4:])}" in self.files
        ):
            return 200, self.files[f"{repository}/{'/'.join(parts[4:])}"]
        return 404, b"not found"

    def _model(self, repository: str, revision: str) -> tuple[int, bytes]:
        there = [name for name in self.files if name.startswith(f"{repository}/")]
        if not there or revision not in ("main", COMMIT):
            return 404, b'{"error":"Repository not found"}'
        siblings = [self._sibling(name, name.removeprefix(f"{repository}/")) for name in there]
        told = {"id": repository, "sha": COMMIT, "siblings": siblings}
        return 200, json.dumps({**told, "cardData": self.cards.get(repository)}).encode()

    def _sibling(self, name: str, file: str) -> dict[str, object]:
        size = len(self.files[name])
        sha256 = hashlib.sha256(self.files[name]).hexdigest()
        lfs = {"lfs": {"sha256": sha256, "size": size}} if name in self.large else {}
        return {"rfilename": file, "size": size, **lfs}


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve on the loopback."""
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            path = self.path.partition("?")[0]
            status, body = served.answer(path, self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
