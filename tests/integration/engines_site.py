"""A site with every engine: llama.cpp and its models are real, Ollama and vLLM doubles."""

from pathlib import Path
from typing import Any

from llmhost.gateway.keys import digest
from testbed.profiles import SERVICES, tiny
from tests.integration.docker_site import DockerSite
from tests.unit.model_files import lora_pair, write_lora
from tests.unit.peft_adapters import write_adapter

Data = dict[str, Any]
PARAMETERS = {"top_k": 5}


def engines(site: DockerSite, directory: Path, key: str) -> Data:
    """Inventory data: all engines, and several models where an engine can have them."""
    data: Data = {
        "services": ["ollama", "llamacpp", "embeddings", "vllm"],
        "llamacpp_image": site.engine,
        "models": [*_llamacpp(directory)],
        "api_clients": [{"name": "test", "sha256": digest(key)}],
        "gateway_tls": "off",
    }
    for service, build in SERVICES.items():
        options, models = build(site.registry, directory)
        data |= {f"{service}_{option}": value for option, value in options.items()}
        data["models"] += [_adapted(model, directory) for model in models]
    (brain,) = [model for model in data["models"] if model["name"] == "brain"]
    data["models"].append({**brain, "name": "terse", "system_prompt": "One word."})
    return data


def _llamacpp(directory: Path) -> list[Data]:
    """The real model, with a real adapter and without."""
    base = {**tiny(directory), "parameters": PARAMETERS}
    return [{**base, "name": "tiny", "adapter": _lora(directory)}, {**base, "name": "tiny-base"}]


def _adapted(model: Data, directory: Path) -> Data:
    """A model of a double with an adapter, if it generates."""
    if model["service"] == "ollama":
        return model | {"adapter": _lora(directory)}
    if model["service"] == "vllm":
        return model | {"adapters": [write_adapter(directory / "style")]}
    return model


def _lora(directory: Path) -> str:
    return str(write_lora(directory / "lora.gguf", lora_pair("blk.0.attn_q.weight")))
