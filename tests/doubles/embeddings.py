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


def serve(address: tuple[str, int], embed_all: Embed) -> None:
    """Serve `POST /v1/embeddings` until SIGTERM."""
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _Listener(address, embed_all).serve_forever()


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], embed_all: Embed) -> None:
        super().__init__(address, _Handler)
        self.embed_all = embed_all


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms
    server: _Listener

    def do_GET(self) -> None:
        self._send(200, {"status": "ok"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = self.path == "/v1/embeddings"
        self._send(200 if found else 404, self._answer(json.loads(body)) if found else {})

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        inputs = request["input"]
        vectors = self.server.embed_all([inputs] if isinstance(inputs, str) else inputs)
        data = [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ]
        return {"object": "list", "model": request["model"], "data": data}

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
    serve(("0.0.0.0", int(sys.argv[1])), lambda texts: map(embed, texts))
