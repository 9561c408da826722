"""A site with every engine: llama.cpp and its models are real, Ollama and vLLM doubles."""

import hashlib
import json
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType as Kind

from tests.integration.docker_site import DockerSite
from tests.machines import tiny_embedder
from tests.machines.double_images import push_double
from tests.unit.model_files import Tensors, write_gguf

Data = dict[str, Any]


def engines(site: DockerSite, directory: Path) -> Data:
    """Inventory data: all engines, two models or more where an engine can have them."""
    doubles = {f"{name}_image": push_double(site.registry, name) for name in ("ollama", "vllm")}
    return {
        "services": ["ollama", "llamacpp", "embeddings", "vllm"],
        "llamacpp_image": site.engine,
        "embeddings_image": site.engine,
        **doubles,
        "models": [
            *_ollama(site),
            _llamacpp(site, directory),
            *_embedders(directory),
            _hub(directory),
        ],
        "api_clients": [{"name": "test", "sha256": "ab" * 32}],
    }


def _tiny(site: DockerSite) -> Data:
    return {"source": str(site.model), "sha256": site.model_sha256, "context_tokens": 512}


def _ollama(site: DockerSite) -> list[Data]:
    prompt = 'You are "brief".\nVery $brief.'
    parameters = {"temperature": 0.2, "stop": ["<end>", "#"]}
    brain = {"name": "brain", "system_prompt": prompt, "parameters": parameters}
    return [
        {**_tiny(site), "service": "ollama", **brain},
        {**_tiny(site), "service": "ollama", "name": "search", "resident": False},
    ]


def _llamacpp(site: DockerSite, directory: Path) -> Data:
    """The real model with a real adapter, of zeros."""
    tensors: Tensors = {
        "blk.0.attn_q.weight.lora_a": ((4, 64), Kind.F32),
        "blk.0.attn_q.weight.lora_b": ((64, 4), Kind.F32),
    }
    about = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
    adapter = write_gguf(directory / "lora.gguf", tensors, about)
    return {**_tiny(site), "name": "tiny", "adapter": str(adapter), "parameters": {"top_k": 5}}


def _embedders(directory: Path) -> list[Data]:
    def model(task: Any) -> Data:
        path = directory / f"{task}.gguf"
        sha256 = tiny_embedder.write(path, task)
        pins = {"source": str(path), "sha256": sha256, "context_tokens": 256}
        return {"name": task, "service": "embeddings", "task": task, **pins}

    return [model("embed"), model("rerank")]


def _hub(directory: Path) -> Data:
    """A directory as it would come from the hub; two of its files are equal."""
    home = directory / "hub"
    (home / "extra").mkdir(parents=True)
    (home / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    for name in ("model-00001-of-00002", "model-00002-of-00002"):
        (home / f"{name}.safetensors").write_bytes(b"a double has no weights")
    (home / "extra/tokenizer.json").write_text("{}")
    files = [
        {
            "path": str(path.relative_to(home)),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(home.rglob("*"))
        if path.is_file()
    ]
    pins = {"source": str(home), "files": files, "context_tokens": 1024}
    return {"name": "writer", "service": "vllm", **pins}
