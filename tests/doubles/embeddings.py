"""A double of an embedding model: texts that share words are near each other, and nothing more.

It speaks OpenAI's interface, also for other models (`serve`). It needs no other file of the
repository: tests copy it into an image. As a program it serves it on a port: `python -m
tests.doubles.embeddings PORT`.
"""

import hashlib
import json
import math
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LENGTH = 64
Embed = Callable[[Sequence[str]], Iterable[list[float]]]
"""One vector for each text."""


def embed(text: str) -> list[float]:
    """A unit vector: the sum of a fixed direction for each word."""
    vector = [0.0] * LENGTH
    for word in re.findall(r"\w+", text.lower()) or [""]:
        bits = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=LENGTH // 8).digest())
        vector = [x + (1 if bits >> i & 1 else -1) for i, x in enumerate(vector)]
    size = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [x / size for x in vector]


def embed_all(texts: Sequence[str]) -> Iterable[list[float]]:
    """A vector of each text."""
    return map(embed, texts)


def answer(request: dict[str, Any], vectors: Embed = embed_all) -> dict[str, Any]:
    """The body of `POST /v1/embeddings`."""
    inputs = request["input"]
    texts = [inputs] if isinstance(inputs, str) else inputs
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors(texts))
    ]
    return {"object": "list", "model": request["model"], "data": data}


def serve(address: tuple[str, int], vectors: Embed) -> None:
    """Serve `POST /v1/embeddings` until SIGTERM."""
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _Listener(address, vectors).serve_forever()


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], vectors: Embed) -> None:
        super().__init__(address, _Handler)
        self.vectors = vectors


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms
    server: _Listener

    def do_GET(self) -> None:
        self._send(200, {"status": "ok"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = self.path == "/v1/embeddings"
        said = answer(json.loads(body), self.server.vectors) if found else {}
        self._send(200 if found else 404, said)

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    serve(("0.0.0.0", int(sys.argv[1])), embed_all)
