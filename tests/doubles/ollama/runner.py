"""llama.cpp's server, which Ollama starts for each file of weights (llm/llama_server.go).

Here only for a model with an adapter, because clients of Ollama cannot answer without it, and
`llmhost verify` asks this server. It has the routes and fields that this check needs.
"""

import json
import os
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests.doubles.ollama.gguf import tensor_data
from tests.doubles.ollama.refusal import Json

WORDS = ["The", " double", " of", " llama.cpp", " says", " this", "."]
LOGPROB = -0.5


def start(weights: Path, adapters: Sequence[Path]) -> subprocess.Popen[bytes] | None:
    """The process, or none without adapters; its arguments come in upstream's order."""
    if not adapters:
        return None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = "from tests.doubles.ollama.runner import main; main()"
    command = [sys.executable, "-B", "-c", program, "--model", str(weights), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--no-webui", "--offline"]
    for adapter in adapters:
        command += ["--lora", str(adapter)]
    places = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen(command, env=places, stdin=subprocess.PIPE)
    while process.poll() is None:  # it is loaded when it answers
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return process
    return None


class Handler(BaseHTTPRequestHandler):
    changing: bool

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answers = {"/tokenize": self.tokenize, "/completion": self.complete}
        data = json.dumps(answers[self.path](body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def tokenize(self, body: Json) -> Json:
        return {"tokens": [*body["content"].encode()]}

    def complete(self, body: Json) -> Json:
        """With a list of scales, an adapter that is not in it has 0."""
        scales = {each["id"]: each["scale"] for each in body.get("lora") or [{"id": 0, "scale": 1}]}
        logprob = LOGPROB - scales.get(0, 0) * self.changing
        words = WORDS[: body["n_predict"]]
        tops = [{"token": word, "logprob": logprob} for word in words]
        found = [{**top, "top_logprobs": [top]} for top in tops] if body.get("n_probs") else []
        return {"content": "".join(words), "completion_probabilities": found}

    def log_message(self, format: str, *args: object) -> None:
        pass


def end_with_ollama() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--lora", type=Path, action="append", default=[])
    options, _ = parser.parse_known_args()
    # Matrices of zeros change nothing.
    seconds = [
        data
        for adapter in options.lora
        for name, data in tensor_data(adapter)
        if name.endswith(".lora_b")
    ]
    Handler.changing = any(map(any, seconds))
    Thread(target=end_with_ollama, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
