"""Profiles: named lists of services with defaults, each of which an inventory may override.

An inventory overrides a default by the key of the same name; `models` replaces all models of the
profile. Their files are not pinned here: `llmhost model lock` does that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY = "stack_profile"
PARTS_KEY = "stack_parts"

_OFFLINE = {"stack_egress": "deny"}
"""Every profile is tried without a network: its services need nothing from outside."""


@dataclass(frozen=True)
class Profile:
    """`defaults` are keys of an inventory."""

    services: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _gguf(role: str, source: str, **more: Any) -> dict[str, Any]:
    return {"name": role, "service": "ollama", "source": f"hf:{source}", **more}


# Roles share one GPU of 16 GiB: the small one stays loaded, the large ones are loaded on demand.
_ROLES = (
    _gguf(
        "brain",
        "bartowski/DeepSeek-R1-Distill-Qwen-14B-GGUF/DeepSeek-R1-Distill-Qwen-14B-Q4_K_M.gguf",
        quantization="Q4_K_M",
        resident=False,
    ),
    _gguf(
        "coder",
        "bartowski/Qwen2.5-Coder-14B-Instruct-GGUF/Qwen2.5-Coder-14B-Instruct-Q4_K_M.gguf",
        quantization="Q4_K_M",
        resident=False,
    ),
    _gguf(
        "search",
        "heegyu/EEVE-Korean-Instruct-10.8B-v1.0-GGUF/ggml-model-Q5_K_M.gguf",
        quantization="Q5_K_M",
        resident=False,
    ),
    _gguf(
        "router",
        "bartowski/Llama-3.2-3B-Instruct-GGUF/Llama-3.2-3B-Instruct-Q8_0.gguf",
        quantization="Q8_0",
    ),
)

_EMBEDDING = {
    "name": "embedding",
    "service": "embeddings",
    "task": "embed",
    "source": "hf:ggml-org/embeddinggemma-300M-GGUF/embeddinggemma-300M-Q8_0.gguf",
    "context_tokens": 2048,
}
_RERANKER = {
    "name": "reranker",
    "service": "embeddings",
    "task": "rerank",
    "source": "hf:gpustack/jina-reranker-v2-base-multilingual-GGUF/"
    "jina-reranker-v2-base-multilingual-Q8_0.gguf",
    "context_tokens": 1024,
}

# Additional models of docling: formulas, descriptions of pictures, lengths of text chunks.
_DOCLING = (
    {"name": "formulas", "service": "docling", "source": "hf:docling-project/CodeFormulaV2"},
    {"name": "pictures", "service": "docling", "source": "hf:HuggingFaceTB/SmolVLM-256M-Instruct"},
    {
        "name": "chunking",
        "service": "docling",
        "task": "embed",
        "source": "hf:sentence-transformers/all-MiniLM-L6-v2",
        "context_tokens": 256,
    },
)

_RAG = (
    {
        "name": "text",
        "service": "ollama",
        "source": "ollama:joonoh/HyperCLOVAX-SEED-Text-Instruct-1.5B:latest",
    },
    {
        "name": "embedding",
        "service": "ollama",
        "task": "embed",
        "source": "ollama:bona/bge-m3-korean:latest",
    },
    *_DOCLING,
)

_SEARCH_LLM = {
    "name": "llm",
    "service": "vllm",
    "source": "hf:Qwen/Qwen3-4B",
    "tool_parser": "hermes",
    "reasoning_parser": "qwen3",
    "context_tokens": 8192,
    "parallel": 16,
}

_QWEN = {
    "name": "qwen3-8b",
    "service": "vllm",
    "source": "hf:Qwen/Qwen3-8B",
    "tool_parser": "hermes",
    "reasoning_parser": "qwen3",
    "context_tokens": 8192,
    "parallel": 16,
}

PROFILES = {
    "embeddings": Profile(("embeddings",), {"models": (_EMBEDDING, _RERANKER)}),
    "ollama": Profile(("ollama",), {"ollama_gpu": 0, "models": _ROLES}),
    # The site adds its own frontend and backend as `apps`.
    "rag-offline": Profile(
        ("ollama", "docling", "chroma"),
        {
            "ollama_gpu": 0,
            "docling_gpu": None,
            "docker_log_max_size_mib": 50,
            "policy_denied_publishers": ("deepseek", "qwen"),
            "models": _RAG,
        },
    ),
    "search": Profile(
        ("search_api", "vllm", "embeddings", "qdrant", "redis"),
        {
            "search_api_embedding_model": "embedding",
            "vllm_gpu": 0,
            "vllm_gpu_fraction": 0.7,
            "vllm_memory_limit": "16g",
            "models": (_SEARCH_LLM, _EMBEDDING),
        },
    ),
    "vllm": Profile(
        ("vllm", "open_webui"),
        {
            "vllm_gpu": 0,
            "vllm_gpu_fraction": 0.9,
            "vllm_timezone": "Asia/Seoul",
            "open_webui_engine_urls": ("http://vllm:8000/v1",),
            "open_webui_ui_port": 3000,
            "models": (_QWEN,),
        },
    ),
}


PARTS = {
    "monitoring": Profile(
        ("grafana",),
        {
            "monitoring_enabled": True,
            "monitoring_server": True,
            # Prometheus reads metrics at ports of the loopback.
            "qdrant_port": 6333,
        },
    ),
}
"""Services and defaults that an inventory adds to its services, or to those of its profile."""


def with_profile(data: Mapping[str, Any]) -> dict[str, Any]:
    """The inventory's data, with the defaults of its profile and of its parts, if they are
    known."""
    named = data.get(KEY)
    profile = PROFILES.get(named) if isinstance(named, str) else None
    found = dict(data)
    if profile:
        found = {"services": profile.services, **_OFFLINE, **profile.defaults, **data}
    for part in (PARTS[name] for name in listed_parts(data) if name in PARTS):
        found = {**part.defaults, **found}
        services = found.get("services", ())
        if isinstance(services, list | tuple):
            more = [name for name in part.services if name not in services]
            found["services"] = (*services, *more)
    return found


def listed_parts(data: Mapping[str, Any]) -> list[str]:
    """The names of the parts; none if the option is no list."""
    named = data.get(PARTS_KEY, ())
    if not isinstance(named, list | tuple):
        return []
    return [name for name in named if isinstance(name, str)]
