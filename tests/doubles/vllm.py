#!/usr/bin/python3 -B
"""A double of vLLM's server: its command line, its needs at its start, its HTTP, and no model.

It proves that what is told to vLLM is what it understands (vllm serve --help of 0.26, and the
OpenAI interface that it has); it says nothing about inference or a GPU. One file without
dependencies, for it is the only program of an image (testbed/double_images.py).
"""

import argparse
import getpass
import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WORDS = ["The", " double", " of", " vLLM", " says", " this", "."]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm serve", allow_abbrev=False)
    parser.add_argument("model", type=Path)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--tensor-parallel-size", type=int)
    parser.add_argument("--pipeline-parallel-size", type=int)
    parser.add_argument("--kv-cache-dtype", choices=["auto", "float16", "bfloat16", "fp8"])
    parser.add_argument("--disable-access-log-for-endpoints")
    parser.add_argument("--runner", choices=["generate", "pooling"], default="generate")
    parser.add_argument("--override-generation-config", type=json.loads)
    parser.add_argument("--enable-prefix-caching", action="store_true")
    if sys.argv[1:2] != ["serve"]:
        parser.error(f"unknown command {sys.argv[1:2]}")
    return parser.parse_args(sys.argv[2:])


def load(options: argparse.Namespace) -> None:
    """What the real one would stumble over: the files, the hub, its caches, the user's name."""
    config = json.loads((options.model / "config.json").read_text())
    longest = config.get("max_position_embeddings", 0)
    if options.max_model_len and options.max_model_len > longest:
        sys.exit(f"ValueError: User-specified max_model_len is greater than the derived {longest}")
    if not sorted(options.model.glob("*.safetensors")):
        sys.exit(f"RuntimeError: Cannot find any model weights with `{options.model}`")
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        sys.exit("the double does not look at the hub; the real one would: set HF_HUB_OFFLINE=1")
    compiled = Path(os.environ["VLLM_CACHE_ROOT"], "torch_compile_cache", getpass.getuser())
    compiled.mkdir(parents=True)
    program = compiled / "kernel"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    if os.spawnv(os.P_WAIT, program, ["kernel"]) != 0:
        sys.exit(f"{program} can not be run: PyTorch would not load what it compiled")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options: argparse.Namespace

    def do_GET(self) -> None:
        card = {"id": self.options.served_model_name, "object": "model"}
        card |= {"max_model_len": self.options.max_model_len}
        said = {"/health": "", "/v1/models": {"object": "list", "data": [card]}}
        self._send(200 if self.path in said else 404, said.get(self.path, {"detail": "Not Found"}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if body.get("model") != self.options.served_model_name:
            message = f"The model `{body.get('model')}` does not exist."
            self._send(404, {"error": {"message": message, "type": "NotFoundError", "code": 404}})
            return
        answers = {"/v1/embeddings": self._embed, "/v1/rerank": self._rerank}
        if self.options.runner == "generate":
            answers = {"/v1/completions": self._complete, "/v1/chat/completions": self._complete}
        if self.path not in answers:
            self._send(404, {"detail": "Not Found"})
            return
        answers[self.path](body)

    def _embed(self, body: dict[str, Any]) -> None:
        digest = hashlib.sha256(str(body["input"]).encode()).digest()[:8]
        data = [{"object": "embedding", "index": 0, "embedding": [byte / 255 for byte in digest]}]
        self._send(200, {"object": "list", "model": body["model"], "data": data})

    def _rerank(self, body: dict[str, Any]) -> None:
        results = [{"index": at, "relevance_score": 0.5} for at, _ in enumerate(body["documents"])]
        self._send(200, {"model": body["model"], "results": results})

    def _complete(self, body: dict[str, Any]) -> None:
        chat = self.path.startswith("/v1/chat")
        words = WORDS[: body.get("max_tokens") or len(WORDS)]

        def choice(text: str) -> dict[str, Any]:
            kind = "delta" if body.get("stream") else "message"
            return {"index": 0, **({kind: {"content": text}} if chat else {"text": text})}

        if not body.get("stream"):
            self._send(200, {"model": body["model"], "choices": [choice("".join(words))]})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = [json.dumps({"choices": [choice(word)]}) for word in words]
        for event in [*(f"data: {each}\n\n" for each in [*events, "[DONE]"]), ""]:
            self.wfile.write(f"{len(event):x}\r\n{event}\r\n".encode())
            self.wfile.flush()

    def _send(self, status: int, said: object) -> None:
        data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    Handler.options = arguments()
    load(Handler.options)
    ThreadingHTTPServer((Handler.options.host, Handler.options.port), Handler).serve_forever()
