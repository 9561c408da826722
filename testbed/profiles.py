"""Data of a site to run a profile here: available engines or their doubles, and models that are
small enough to generate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from llmhost.inventory.profiles import PROFILES
from testbed import tiny_embedder, tiny_model
from testbed.double_images import push_double
from testbed.engine import push_engine
from testbed.image_registry import ImageRegistry
from testbed.stand_ins import APPS, options_of, repository, small

Data = dict[str, Any]


def profile_data(profile: str, registry: ImageRegistry, directory: Path) -> Data:
    """Inventory data of a profile: its services and models, with what is available here."""
    declared = PROFILES[profile]
    data: Data = {"stack_profile": profile, "models": []}
    for service in declared.services:
        engine = ENGINES.get(service)
        options = engine(registry) if engine else options_of(service, registry, directory)
        data |= {f"{service}_{option}": value for option, value in options.items()}
    data["models"] = [small(model, directory) for model in declared.defaults.get("models", ())]
    data["apps"] = [app(registry, directory) for app in APPS.get(profile, ())]
    return data


def tiny(directory: Path) -> Data:
    """Source and pins of the tiny model."""
    path = directory / "tiny.gguf"
    return {"source": str(path), "sha256": tiny_model.write(path), "context_tokens": 512}


def ollama(registry: ImageRegistry, directory: Path) -> tuple[Data, list[Data]]:
    """A double, with one resident role and one that is not."""
    prompt = 'You are "brief".\nVery $brief.'
    parameters = {"temperature": 0.2, "stop": ["<end>", "#"]}
    brain = {"name": "brain", "system_prompt": prompt, "parameters": parameters}
    models = [
        {**brain, **tiny(directory)},
        {"name": "search", "resident": False, **tiny(directory)},
    ]
    return ENGINES["ollama"](registry), _of("ollama", models)


def vllm(registry: ImageRegistry, directory: Path) -> tuple[Data, list[Data]]:
    """A double, with a directory as from the hub; two of its files are equal."""
    model = {"name": "writer", **repository(directory / "hub")}
    return ENGINES["vllm"](registry), _of("vllm", [model])


def embeddings(registry: ImageRegistry, directory: Path) -> tuple[Data, list[Data]]:
    """The real engine, with untrained models."""
    tasks: tuple[Literal["embed", "rerank"], ...] = ("embed", "rerank")
    models = []
    for task in tasks:
        path = directory / f"{task}.gguf"
        sha256 = tiny_embedder.write(path, task)
        pins = {"source": str(path), "sha256": sha256, "context_tokens": 256}
        models.append({"name": task, "task": task, **pins})
    return ENGINES["embeddings"](registry), _of("embeddings", models)


def _engine(image: str) -> Data:
    # There is no GPU here, even if the profile has one.
    return {"image": image, "gpu": None}


def _of(service: str, models: list[Data]) -> list[Data]:
    return [{**model, "service": service} for model in models]


ENGINES: dict[str, Callable[[ImageRegistry], Data]] = {
    "ollama": lambda registry: _engine(push_double(registry, "ollama")),
    "vllm": lambda registry: _engine(push_double(registry, "vllm")),
    "embeddings": lambda registry: _engine(push_engine(registry)),
}
"""The options of the engines: the real one if it is available, else its double."""

SERVICES: dict[str, Callable[[ImageRegistry, Path], tuple[Data, list[Data]]]] = {
    "ollama": ollama,
    "vllm": vllm,
    "embeddings": embeddings,
}
"""How each engine runs here: its options, without the prefix of its name, and its models."""
