"""A double of Ollama's POST /api/chat: one line of JSON a word, on time, as Ollama streams.

It speaks the wire format that Ollama documents (docs/api.md, "Generate a chat completion") and
holds no model: what it proves is that Ollama's own client gets through the gateway.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

WORDS = ("The", " gateway", " lets", " this", " through", ".")
INTERVAL_SECONDS = 0.1


@contextmanager
def ollama_chat(port: int) -> Iterator[None]:
    """The double on 127.0.0.1:`port`."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Chat)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, word in enumerate(WORDS, start=1):
            time.sleep(INTERVAL_SECONDS)
            self._line(asked["model"], word, done=number == len(WORDS))
        self.wfile.write(b"0\r\n\r\n")

    def _line(self, model: str, word: str, *, done: bool) -> None:
        said = {"role": "assistant", "content": word}
        line = json.dumps({"model": model, "message": said, "done": done}).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests read the gateway's log."""
