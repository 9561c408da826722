"""Record what llama.cpp's server answers: `python -m tests.engines.record_llamacpp`, as root."""

import json
import tempfile
from pathlib import Path

import httpx

from llmhost.inventory.reader import read_settings
from testbed.engine import engine_archive
from tests.engines.container import EngineImage, container
from tests.engines.test_llamacpp import LITERAL, data
from tests.shapes import shape

TARGET = Path(__file__).parent / "recorded/llamacpp.json"
CHAT = {"model": "router", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
REQUESTS = (
    "GET /health",
    "GET /v1/models",
    "GET /models",
    f"POST /v1/chat/completions {json.dumps(CHAT)}",
    f"POST /v1/chat/completions {json.dumps(CHAT | {'model': 'another'})}",
    f"POST /v1/chat/completions {json.dumps(CHAT | {'logprobs': True, 'top_logprobs': 1})}",
    'POST /v1/completions {"prompt": "One, two,", "max_tokens": 4}',
    'POST /v1/completions {"prompt": ["One,", "Two,"], "max_tokens": 2}',
    'POST /v1/embeddings {"input": "text"}',
    'POST /v1/rerank {"query": "a", "documents": ["b"]}',
    'POST /tokenize {"content": "Hello"}',
    'POST /v1/responses {"model": "router", "input": "Hi", "max_output_tokens": 4}',
    "POST /v1/responses {}",
    f"POST /v1/messages {json.dumps(CHAT)}",
    'POST /v1/messages {"model": "router"}',
    f"POST /v1/messages/count_tokens {json.dumps(CHAT)}",
    "GET /slots",
    "GET /metrics",
    "GET /",
    "GET /nowhere",
    "POST /v1/models",
    "GET /v1/chat/completions",
    "POST /v1/chat/completions",
    "POST /v1/chat/completions {broken",
    "POST /v1/chat/completions []",
    'POST /v1/chat/completions {"model": "router"}',
    'POST /v1/chat/completions {"messages": "text"}',
    'POST /v1/chat/completions {"messages": [{"role": "user"}]}',
    f"POST /v1/chat/completions {json.dumps(CHAT | {'max_tokens': 'many'})}",
    f"POST /v1/chat/completions {json.dumps(CHAT | {'response_format': {'type': 'poem'}})}",
    "POST /v1/completions {}",
)


def record(api: httpx.Client, request: str) -> dict[str, object]:
    method, path, *body = request.split(" ", 2)
    answer = api.request(method, path, content="".join(body))
    kind = answer.headers.get("Content-Type")
    structure = shape(answer.json(), LITERAL) if "json" in (kind or "") else None
    return {
        "request": request,
        "status": answer.status_code,
        "content_type": kind,
        "shape": structure,
        "answer": answer.text[:400],
    }


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        container(
            read_settings(data()), "llamacpp", EngineImage(engine_archive()), Path(directory)
        ) as server,
        httpx.Client(base_url=server.url, timeout=120) as api,
    ):
        recorded = [record(api, request) for request in REQUESTS]
    TARGET.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
