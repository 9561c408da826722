"""The model of the demo: one that answers, or a generated one where that cannot be downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed import smollm2, tiny_model

Data = dict[str, Any]
NAMES = ("smollm2", "tiny")
QUESTION = "What is a computer? Answer in one short sentence."


def declared(name: str, directory: Path) -> Data:
    """The model as an inventory declares it.

    Raises PackageUnavailableError if it cannot be downloaded.
    """
    if name == "tiny":
        path = directory / "tiny.gguf"
        pins = {"source": str(path), "sha256": tiny_model.write(path), "context_tokens": 512}
    else:
        pins = {
            "source": str(smollm2.gguf()),
            "sha256": smollm2.SHA256,
            "context_tokens": smollm2.CONTEXT_TOKENS,
            # The same question gets the same answer.
            "parameters": {"temperature": 0},
        }
    return {"name": name, "service": "llamacpp", **pins}


def curl(model: str, url: str, key: str) -> str:
    """A command that shows how the model answers."""
    body: Mapping[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    path = "/v1/chat/completions"
    if model == "tiny":
        body = {"model": model, "stream": True, "max_tokens": 40, "prompt": "Hello"}
        path = "/v1/completions"
    return (
        f"curl -N {url}{path} -H 'Authorization: Bearer {key}'"
        f" -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )
