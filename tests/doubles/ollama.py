#!/usr/bin/python3 -B
"""A double of Ollama: its commands, its store on disk and its HTTP interface, and no model at all.

It proves that models are made, found and asked for as Ollama demands (docs/api.md,
docs/modelfile.mdx and server/create.go of ollama/ollama 0.31); it says nothing about inference. One
file without dependencies, for it is the only program of an image (testbed/double_images.py).
"""

import hashlib
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

STORE = Path(os.environ.get("OLLAMA_MODELS", "/root/.ollama/models"))
HOST, _, PORT = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")
WORDS = ["The", " double", " of", " Ollama", " says", " this", "."]
MODEL, ADAPTER, SYSTEM, PARAMS = (
    f"application/vnd.ollama.image.{kind}" for kind in ("model", "adapter", "system", "params")
)


def manifest_path(reference: str) -> Path:
    """types/model/name.go: `name`, `name:tag`, `publisher/name:tag`."""
    name, _, tag = reference.partition(":")
    publisher, _, model = name.rpartition("/")
    return (
        STORE
        / "manifests/registry.ollama.ai"
        / (publisher or "library")
        / model
        / (tag or "latest")
    )


def blob_path(digest: str) -> Path:
    return STORE / "blobs" / digest.replace(":", "-")


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


class Refused(Exception):
    """An error that the client is told."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Models:
    """What is in the store, and what is loaded until when."""

    def __init__(self) -> None:
        self.loaded: dict[str, float] = {}
        self.lock = Lock()
        self.most = int(os.environ.get("OLLAMA_MAX_LOADED_MODELS", "0")) or 3

    def manifest(self, model: str) -> dict[str, Any]:
        path = manifest_path(model)
        if not path.is_file():
            raise Refused(404, f"model '{model}' not found")
        return dict(json.loads(path.read_text()))

    def names(self) -> Iterator[str]:
        for path in sorted((STORE / "manifests").glob("*/*/*/*")):
            publisher, name, tag = path.parts[-3:]
            yield f"{name}:{tag}" if publisher == "library" else f"{publisher}/{name}:{tag}"

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        layers = []
        if "from" in wanted:
            layers += self.manifest(wanted["from"])["layers"]
        for kind, files in ((MODEL, wanted.get("files")), (ADAPTER, wanted.get("adapters"))):
            layers += [self._layer(kind, digest) for digest in (files or {}).values()]
        if not any(layer["mediaType"] == MODEL for layer in layers):
            raise Refused(400, "neither 'from' or 'files' was specified")
        for kind, content in ((SYSTEM, wanted.get("system")), (PARAMS, wanted.get("parameters"))):
            if content:
                text = content if isinstance(content, str) else json.dumps(content)
                layers.append(self._layer(kind, self._write(text.encode())))
        config = self._write(json.dumps({"model_format": "gguf"}).encode())
        path = manifest_path(wanted["model"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"schemaVersion": 2, "config": {"digest": config}, "layers": layers})
        )
        return {"status": "success"}

    def _layer(self, kind: str, digest: str) -> dict[str, Any]:
        path = blob_path(digest)
        if not path.is_file():
            raise Refused(400, f"blob {digest} not found")
        with path.open("rb") as file:
            if kind in (MODEL, ADAPTER) and file.read(4) != b"GGUF":
                raise Refused(400, "supplied file was not in GGUF format")
        return {"mediaType": kind, "digest": digest, "size": path.stat().st_size}

    def _write(self, content: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        path = blob_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
            path.chmod(0o600)  # os.CreateTemp's, as it was in some versions
        return digest

    def load(self, model: str, keep_alive: object) -> dict[str, Any]:
        manifest = self.manifest(model)
        for layer in manifest["layers"]:
            with blob_path(layer["digest"]).open("rb") as file:  # the weights are really read
                file.read(4)
        seconds = _seconds(
            keep_alive if keep_alive is not None else os.environ.get("OLLAMA_KEEP_ALIVE", "5m")
        )
        with self.lock:
            until = float("inf") if seconds < 0 else time.time() + seconds
            if keep_alive is None and model in self.loaded:
                until = max(until, self.loaded[model])
            self.loaded[model] = until
            for other in sorted(self.loaded, key=lambda name: self.loaded[name]):
                if len(self.loaded) > self.most and other != model:
                    del self.loaded[other]
        return manifest

    def running(self) -> list[str]:
        with self.lock:
            self.loaded = {name: end for name, end in self.loaded.items() if end > time.time()}
            return sorted(self.loaded)

    def text(self, manifest: dict[str, Any], kind: str) -> str:
        digests = [layer["digest"] for layer in manifest["layers"] if layer["mediaType"] == kind]
        return blob_path(digests[-1]).read_text() if digests else ""


def _seconds(duration: object) -> float:
    match = re.fullmatch(r"(-?\d+)([smh]?)", str(duration))
    if not match:
        raise Refused(400, f"invalid duration {duration}")
    return int(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


models = Models()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        sys.stderr.write(f"[GIN] {format % args}\n")

    def do_GET(self) -> None:
        self._answer(
            {
                "/": lambda: "Ollama is running",
                "/api/version": lambda: {"version": "0.0.0-double"},
                "/api/tags": lambda: {
                    "models": [{"name": name, "model": name} for name in models.names()]
                },
                "/api/ps": lambda: {
                    "models": [
                        {"name": f"{name}:latest", "size": 1, "size_vram": 0}
                        for name in models.running()
                    ]
                },
                "/v1/models": lambda: {
                    "object": "list",
                    "data": [
                        {"id": name.removesuffix(":latest"), "object": "model"}
                        for name in models.names()
                    ],
                },
            }
        )

    def do_HEAD(self) -> None:
        there = blob_path(self.path.rpartition("/")[2]).exists()
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/api/blobs/"):
            blob_path(self.path.rpartition("/")[2]).write_bytes(content)
            self._send(201, "")
            return
        try:
            body = json.loads(content or b"{}")
        except ValueError:
            self._send(400, {"error": "invalid character"})
            return
        self._answer(
            {
                "/api/create": lambda: models.create(body),
                "/api/show": lambda: self._show(body),
                "/api/generate": lambda: self._generate(body, chat=False),
                "/api/chat": lambda: self._generate(body, chat=True),
                "/api/embed": lambda: self._embed(body),
                "/v1/completions": lambda: self._complete(body, "text"),
                "/v1/chat/completions": lambda: self._complete(body, "chat"),
                "/v1/embeddings": lambda: self._complete(body, "embedding"),
            }
        )

    def _answer(self, routes: dict[str, Any]) -> None:
        try:
            if self.path not in routes:
                raise Refused(404, "404 page not found")
            said = routes[self.path]()
        except Refused as refused:
            self._send(refused.status, {"error": str(refused)})
        except OSError as error:
            self._send(500, {"error": str(error)})
        else:
            self._send(200, said)

    def _send(self, status: int, said: object) -> None:
        if isinstance(said, Stream):
            self._stream(said)
            return
        data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, stream: "Stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", stream.kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in [*stream.lines, ""]:
            self.wfile.write(f"{len(line.encode()):x}\r\n{line}\r\n".encode())
            self.wfile.flush()

    def _show(self, body: dict[str, Any]) -> dict[str, Any]:
        manifest = models.manifest(body.get("model", ""))
        return {
            "system": models.text(manifest, SYSTEM),
            "parameters": models.text(manifest, PARAMS),
            "details": {"format": "gguf"},
            "layers": manifest["layers"],
        }

    def _generate(self, body: dict[str, Any], *, chat: bool) -> object:
        name = body["model"]
        models.load(name, body.get("keep_alive"))
        asked = body.get("messages") if chat else body.get("prompt")
        words = WORDS if asked else []
        said = ['{"ok": true}'] if body.get("format") == "json" and words else words

        def part(text: str, *, done: bool) -> dict[str, Any]:
            key, value = (
                ("message", {"role": "assistant", "content": text}) if chat else ("response", text)
            )
            return {"model": name, key: value, "done": done} | (
                {"done_reason": "stop"} if done else {}
            )

        if body.get("stream", True):
            parts = [*(part(word, done=False) for word in said), part("", done=True)]
            return Stream("application/x-ndjson", [json.dumps(each) + "\n" for each in parts])
        return part("".join(said), done=True)

    def _embed(self, body: dict[str, Any]) -> dict[str, Any]:
        models.load(body["model"], body.get("keep_alive"))
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        return {"model": body["model"], "embeddings": [vector(text) for text in texts]}

    def _complete(self, body: dict[str, Any], kind: str) -> object:
        models.load(body["model"], None)
        if kind == "embedding":
            data = [{"object": "embedding", "index": 0, "embedding": vector(str(body["input"]))}]
            return {"object": "list", "model": body["model"], "data": data}

        def choice(text: str) -> dict[str, Any]:
            if kind == "text":
                return {"index": 0, "text": text}
            return {"index": 0, "delta" if body.get("stream") else "message": {"content": text}}

        if body.get("stream"):
            events = [f"data: {json.dumps({'choices': [choice(word)]})}\n\n" for word in WORDS]
            return Stream("text/event-stream", [*events, "data: [DONE]\n\n"])
        return {"model": body["model"], "choices": [choice("".join(WORDS))]}


class Stream:
    """An answer in parts."""

    def __init__(self, kind: str, lines: list[str]) -> None:
        self.kind, self.lines = kind, lines


def vector(text: str) -> list[float]:
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:8]]


def serve() -> None:
    # As the real one does at its start: a key for the library, and a look at its store.
    home = Path(os.environ["HOME"], ".ollama")
    home.mkdir(parents=True, exist_ok=True)
    (home / "id_ed25519").write_text("a double's key\n")
    (STORE / "blobs").mkdir(parents=True, exist_ok=True)
    ThreadingHTTPServer((HOST, int(PORT)), Handler).serve_forever()


def call(path: str, body: dict[str, Any] | None = None) -> Any:
    """The command line is a client of the server."""
    place = "127.0.0.1" if HOST == "0.0.0.0" else HOST
    request = urllib.request.Request(f"http://{place}:{PORT}{path}")
    request.data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"Error: {json.load(error)['error']}")
    except OSError:
        sys.exit("Error: could not connect to ollama server, run 'ollama serve' to start it")


def create(model: str, modelfile: Path) -> None:
    body: dict[str, Any] = {"model": model, "parameters": {}}
    text = modelfile.read_text()
    command = re.compile(
        r'^(FROM|ADAPTER|SYSTEM|PARAMETER \w+)\s+(?:"""(.*?)"""|(.*?))$', re.M | re.S
    )
    for found in command.finditer(text):
        what, value = found[1], found[2] if found[2] is not None else found[3]
        if what in ("FROM", "ADAPTER") and Path(value).is_file():
            key = "files" if what == "FROM" else "adapters"
            body[key] = {Path(value).name: upload(Path(value))}
        elif what == "FROM":
            body["from"] = value
        elif what == "SYSTEM":
            body["system"] = value
        elif what.startswith("PARAMETER"):
            body["parameters"].setdefault(what.split()[1], []).append(value)
    call("/api/create", body)
    print("success")


def upload(path: Path) -> str:
    digest = digest_of(path)
    if not blob_path(digest).exists():
        print(f"copying file {digest}", flush=True)
        blob_path(digest).write_bytes(path.read_bytes())
    return digest


def main(command: str, *arguments: str) -> None:
    options = [each for each in arguments if each.startswith("--")]
    names = [each for each in arguments if not each.startswith("--")]
    keep_alive = next((each.partition("=")[2] for each in options), None)
    match command:
        case "serve":
            serve()
        case "list":
            print("\n".join(["NAME", *(each["name"] for each in call("/api/tags")["models"])]))
        case "ps":
            print("\n".join(["NAME", *(each["name"] for each in call("/api/ps")["models"])]))
        case "create":
            create(names[0], Path(names[2]))
        case "run":
            call("/api/show", {"model": names[0]})
            body = {
                "model": names[0],
                "prompt": " ".join(names[1:]),
                "keep_alive": keep_alive,
                "stream": False,
            }
            print(call("/api/generate", body)["response"])
        case _:
            sys.exit(f'Error: unknown command "{command}" for "ollama"')


if __name__ == "__main__":
    main(*sys.argv[1:])
