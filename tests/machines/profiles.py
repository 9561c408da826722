"""What a site needs to run a profile here: engines that can be had, or their doubles, and models
small enough to make on the spot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from llmhost.profiles import PROFILES
from tests.machines import tiny_embedder, tiny_model
from tests.machines.double_images import push_double
from tests.machines.engine import push_engine
from tests.machines.image_registry import ImageRegistry

Data = dict[str, Any]


def profile_data(profile: str, registry: ImageRegistry, directory: Path) -> Data:
    """Inventory data of a profile; KeyError if one of its services can not be run here."""
    data: Data = {"stack_profile": profile, "models": []}
    for service in PROFILES[profile].services:
        options, models = SERVICES[service](registry, directory)
        data |= {f"{service}_{option}": value for option, value in options.items()}
        data["models"] += models
    return data


def tiny(directory: Path) -> Data:
    """Source and pins of the model that babbles."""
    path = directory / "tiny.gguf"
    return {"source": str(path), "sha256": tiny_model.write(path), "context_tokens": 512}


def ollama(registry: ImageRegistry, directory: Path) -> tuple[Data, list[Data]]:
    """A double, with a role that is resident and one that is not."""
    prompt = 'You are "brief".\nVery $brief.'
    parameters = {"temperature": 0.2, "stop": ["<end>", "#"]}
    brain = {"name": "brain", "system_prompt": prompt, "parameters": parameters}
    models = [
        {**brain, **tiny(directory)},
        {"name": "search", "resident": False, **tiny(directory)},
    ]
    return _engine(push_double(registry, "ollama")), _of("ollama", models)


def vllm(registry: ImageRegistry, directory: Path) -> tuple[Data, list[Data]]:
    """A double, with a directory as it would come from the hub; two of its files are equal."""
    home = directory / "hub"
    (home / "extra").mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    (home / "extra/tokenizer.json").write_text("{}")
    for name in ("model-00001-of-00002", "model-00002-of-00002"):
        (home / f"{name}.safetensors").write_bytes(b"a double has no weights")
    paths = [path for path in sorted(home.rglob("*")) if path.is_file()]
    files = [
        {
            "path": str(path.relative_to(home)),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in paths
    ]
    model = {"name": "writer", "source": str(home), "files": files, "context_tokens": 1024}
    return _engine(push_double(registry, "vllm")), _of("vllm", [model])


def embeddings(registry: ImageRegistry, directory: Path) -> tuple[Data, list[Data]]:
    """The real engine, with real models that learned nothing."""
    tasks: tuple[Literal["embed", "rerank"], ...] = ("embed", "rerank")
    models = []
    for task in tasks:
        path = directory / f"{task}.gguf"
        sha256 = tiny_embedder.write(path, task)
        pins = {"source": str(path), "sha256": sha256, "context_tokens": 256}
        models.append({"name": task, "task": task, **pins})
    return _engine(push_engine(registry)), _of("embeddings", models)


def _engine(image: str) -> Data:
    # There is no GPU here, whatever the profile has.
    return {"image": image, "gpu": None}


def _of(service: str, models: list[Data]) -> list[Data]:
    return [{**model, "service": service} for model in models]


SERVICES: dict[str, Callable[[ImageRegistry, Path], tuple[Data, list[Data]]]] = {
    "ollama": ollama,
    "vllm": vllm,
    "embeddings": embeddings,
}
"""How each service is had here: its options, without its name before them, and its models."""
