"""A site with every engine: llama.cpp and its models are real, Ollama and vLLM doubles."""

from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType as Kind

from llmhost.gateway.keys import digest
from testbed.profiles import SERVICES, tiny
from tests.integration.docker_site import DockerSite
from tests.unit.model_files import Tensors, write_gguf

Data = dict[str, Any]


def engines(site: DockerSite, directory: Path, key: str) -> Data:
    """Inventory data: all engines, and several models where an engine can have them."""
    data: Data = {
        "services": ["ollama", "llamacpp", "embeddings", "vllm"],
        "llamacpp_image": site.engine,
        "models": [_llamacpp(directory)],
        "api_clients": [{"name": "test", "sha256": digest(key)}],
        "gateway_tls": "off",
    }
    for service, build in SERVICES.items():
        options, models = build(site.registry, directory)
        data |= {f"{service}_{option}": value for option, value in options.items()}
        data["models"] += models
    return data


def _llamacpp(directory: Path) -> Data:
    """The real model with a real adapter, of zeros."""
    tensors: Tensors = {
        "blk.0.attn_q.weight.lora_a": ((4, 64), Kind.F32),
        "blk.0.attn_q.weight.lora_b": ((64, 4), Kind.F32),
    }
    about = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
    adapter = write_gguf(directory / "lora.gguf", tensors, about)
    return {**tiny(directory), "name": "tiny", "adapter": str(adapter), "parameters": {"top_k": 5}}
