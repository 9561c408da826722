"""The HTTP server: its routes, and how it reads and writes."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.doubles.ollama.answers import Stream, Text, number
from tests.doubles.ollama.anthropic import messages
from tests.doubles.ollama.closed import create, read_only, refuse_cloud, remote, show, transcribe
from tests.doubles.ollama.native import chat, embed, embeddings, generate
from tests.doubles.ollama.openai import complete, openai_embeddings, openai_models, retrieve
from tests.doubles.ollama.openai_responses import responses
from tests.doubles.ollama.refusal import JSON_UTF8, Json, Refused
from tests.doubles.ollama.scheduler import scheduler
from tests.doubles.ollama.store import all_models, blob

HOST, _, PORT = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")

READ: dict[str, Callable[[], object]] = {
    "/": lambda: Text("Ollama is running"),
    "/api/version": lambda: {"version": "0.31.1"},
    "/api/status": lambda: {"cloud": {"disabled": True, "source": "env"}},
    "/api/tags": lambda: {"models": [model.listed for model in all_models()]},
    "/api/ps": lambda: {"models": scheduler.running()},
    "/api/experimental/model-recommendations": lambda: {
        "recommendations": [
            {"model": "a:cloud", "description": "A", "context_length": 1, "max_output_tokens": 1}
        ]
    },
    "/v1/models": openai_models,
}
WRITE: dict[str, Callable[[Json], object]] = {
    "/api/show": show,
    "/api/generate": generate,
    "/api/chat": chat,
    "/api/embed": embed,
    "/api/embeddings": embeddings,
    "/api/create": create,
    "/api/copy": read_only("mkdir", "manifests/registry.ollama.ai/library"),
    "/api/pull": remote,
    "/api/push": remote,
    "/api/experimental/web_search": refuse_cloud("web search"),
    "/api/experimental/web_fetch": refuse_cloud("web fetch"),
    "/v1/chat/completions": lambda body: complete(body, chat=True),
    "/v1/completions": lambda body: complete(body, chat=False),
    "/v1/embeddings": openai_embeddings,
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/audio/transcriptions": transcribe,
}
HEAD = ("/", "/api/version", "/api/tags")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        sys.stderr.write(f"[GIN] {format % args}\n")

    def handle_any(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self._send(200, self._answer(self.path.partition("?")[0], content))
        except Refused as refused:
            self._refuse(refused)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = handle_any

    def _answer(self, path: str, content: bytes) -> object:
        if path.startswith("/api/blobs/") and self.command in ("HEAD", "POST"):
            if self.command == "POST":
                return read_only("open", "blobs/sha256-new")({})
            if not blob(path.rpartition("/")[2]).exists():
                raise Refused(404, "blob not found")
            return Text("", JSON_UTF8)
        known = path in READ or path in WRITE or path.startswith("/v1/models/")
        if self.command == "GET" and path.startswith("/v1/models/"):
            return retrieve(path.removeprefix("/v1/models/"))
        if path in READ and (self.command == "GET" or (self.command == "HEAD" and path in HEAD)):
            return READ[path]()
        if path in WRITE and self.command == "POST":
            return WRITE[path](parsed(content))
        status, what = (405, "method not allowed") if known else (404, "page not found")
        raise Refused(status, f"{status} {what}", "text/plain")

    def _refuse(self, refused: Refused) -> None:
        payload: object = {"error": str(refused)}
        if refused.kind == "text/plain":
            payload = Text(str(refused), refused.kind)
        elif self.path.startswith("/v1/messages"):
            error = {"type": _error_type(refused.status), "message": str(refused)}
            payload = {"type": "error", "error": error, "request_id": number("req_")}
        elif self.path.startswith("/v1/"):
            kind = _error_type(refused.status)
            payload = {
                "error": {"message": str(refused), "type": kind, "param": None, "code": None}
            }
        text = payload.text if isinstance(payload, Text) else json.dumps(payload)
        self._send(refused.status, Text(text, refused.kind))

    def _send(self, status: int, payload: object) -> None:
        if isinstance(payload, Stream):
            self._stream(payload)
            return
        answer = payload if isinstance(payload, Text) else Text(json.dumps(payload), JSON_UTF8)
        data = answer.text.encode()
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, stream: Stream) -> None:
        self.send_response(200)
        self.send_header("Content-Type", stream.kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for line in [*stream.lines, ""]:
                self.wfile.write(f"{len(line.encode()):x}\r\n{line}\r\n".encode())
                self.wfile.flush()
                time.sleep(stream.pause)
        finally:
            if stream.runner:
                scheduler.release(stream.runner)


def _error_type(status: int) -> str:
    return {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")


def parsed(content: bytes) -> Json:
    """The body as Go reads it, with its errors."""
    if not content:
        raise Refused(400, "missing request body")
    try:
        body = json.loads(content)
    except ValueError:
        found = re.match(rb'\s*\{\s*([^"}\s])', content)
        what = f"'{found[1].decode()}' looking for beginning of object key string" if found else ""
        raise Refused(400, f"invalid character {what}") from None
    if not isinstance(body, dict):
        raise Refused(400, "json: cannot unmarshal into Go value of an object")
    return {name.casefold(): value for name, value in body.items()}


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def serve() -> None:
    # As the real one does at its start: a key for the library.
    home = Path(os.environ["HOME"], ".ollama")
    home.mkdir(parents=True, exist_ok=True)
    (home / "id_ed25519").write_text("a double's key\n")
    with suppress(KeyboardInterrupt):
        Server((HOST, int(PORT)), Handler).serve_forever()
