"""Which requests count for a quota of tokens."""

from typing import Any

import pytest

from llmhost.gateway.models import MODEL_PATHS, PROMPT_PATHS, TEXT_PATHS
from llmhost.gateway.routes import counted_paths, exposed_routes
from llmhost.gateway.tree import NginxPaths, configuration
from llmhost.inventory.reader import read_settings
from llmhost.services import catalogue

CLIENT = {"name": "a", "sha256": "1" * 64}
NOT_ASKED = {"/v1/messages/count_tokens", "/tokenize", "/api/show"}
"""Routes of engines at which no model reads or writes."""


def counted(*services: str, **more: Any) -> dict[str, str]:
    models = [
        {"name": each, "service": each, "source": "https://x/m.gguf", "sha256": "1" * 64}
        for each in services
        if each in ("llamacpp", "ollama")
    ]
    data = {"services": services, "models": models, "api_clients": [CLIENT], **more}
    return counted_paths(exposed_routes(read_settings(data)))


@pytest.mark.parametrize("name", ["embeddings", "llamacpp", "ollama", "vllm"])
def test_every_route_of_an_engine_counts_or_asks_no_model(name: str) -> None:
    """A new route has to be in one of the lists: otherwise its requests would be free."""
    posted = {each.path for each in catalogue()[name].routes if "POST" in each.methods}
    assert posted <= TEXT_PATHS | PROMPT_PATHS | NOT_ASKED


def test_paths_that_name_a_model_count() -> None:
    assert MODEL_PATHS - NOT_ASKED <= TEXT_PATHS | PROMPT_PATHS
    assert not TEXT_PATHS & PROMPT_PATHS


def test_routes_count_under_the_name_of_their_service() -> None:
    found = counted("docling", "ollama")
    assert found["/ollama/api/chat"] == found["/ollama/v1/responses"] == "text"
    assert found["/ollama/api/embeddings"] == "prompt"
    assert not [path for path in found if "/convert/" in path]  # docling's, at the root


def test_routes_that_the_gateway_chooses_by_their_model_count() -> None:
    found = counted("llamacpp", "ollama")
    assert found["/v1/chat/completions"] == found["/ollama/api/generate"] == "text"
    assert found["/v1/rerank"] == "prompt"
    assert not NOT_ASKED & found.keys()


def test_routes_of_an_app_count_if_they_name_a_model() -> None:
    app = {
        "name": "ask",
        "image": "registry.example/ask:1@sha256:" + "1" * 64,
        "container_port": 8000,
        "port": 8100,
        "health": ["true"],
        "routes": [
            {"path": "/answer", "methods": ["POST"]},
            {"path": "/v1/chat/completions", "methods": ["POST"]},
            {"path": "/state"},
            {"path": "/files/{name}", "methods": ["POST"]},
        ],
    }
    found = counted("llamacpp", apps=[app])
    own = {path: what for path, what in found.items() if path.startswith("/ask/")}
    assert own == {"/ask/answer": "named", "/ask/v1/chat/completions": "text"}


def test_counted_routes_get_no_compressed_answers() -> None:
    model = {"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}
    data = {"services": ["llamacpp"], "models": [model], "api_clients": [CLIENT]}
    data |= {"gateway_count_tokens": True}
    main = configuration(read_settings(data), NginxPaths())[0].data.decode()
    encoding = main.partition("$gateway_encoding {")[2].partition("}")[0]
    assert '"/v1/completions" "";' in encoding and "/tokenize" not in encoding
