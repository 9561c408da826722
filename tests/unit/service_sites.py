"""Inventories for every service of the catalogue: with its defaults, and with each kind of option
and model that changes what is rendered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.services import catalogue
from llmhost.services.abilities import Abilities
from llmhost.services.base import AnyService
from tests.unit.peft_adapters import write_adapter

Data = dict[str, Any]

_DIGEST = "ab" * 32
_SOURCES: dict[str, Data] = {
    "file": {"source": "https://example.com/m.gguf", "sha256": _DIGEST},
    "files": {
        "source": "hf:publisher/name",
        "revision": "12" * 20,
        "files": [{"path": "config.json", "sha256": _DIGEST}],
    },
    "parts": {
        "source": "hf:publisher/name",
        "revision": "12" * 20,
        "files": [
            {"path": f"m-0000{number}-of-00002.gguf", "sha256": _DIGEST} for number in (1, 2)
        ],
    },
    "ollama": {
        "source": "ollama:name:tag",
        "files": [
            {"path": name, "sha256": "cd" * 32} for name in ("manifest", f"sha256-{'cd' * 32}")
        ],
    },
}
_PARAMETERS = {
    "temperature": 0.5,
    "top_k": 20,
    "top_p": 0.9,
    "min_p": 0.1,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "seed": 7,
    "max_tokens": 99,
    "stop": ["a $b", 'say "{no}"'],
}
_OF_EVERY_SERVICE: dict[str, Data] = {
    "one GPU": {"gpu": 0},
    "two GPUs": {"gpu": [0, 1]},
    "any four GPUs": {"gpu_count": 4},
    "a shared GPU": {"gpu": 0, "gpu_shared": True, "gpu_fraction": 0.25},
    "a memory limit": {"memory_limit": "3g"},
    "a port": {"port": 18080},
    "a variable": {"environment": {"NCCL_P2P_DISABLE": "1", "ODD": "a: {b} # $HOME \"'\n"}},
}


def sites(directory: Path) -> Iterator[tuple[str, str, Data]]:
    """The service's name, what is special, and the inventory."""
    for name, service in catalogue().items():
        for what, options in _options(service):
            yield name, what, _site(service, directory, _models(service), options)
        for what, models in _model_variants(service, directory):
            yield name, what, _site(service, directory, models, {})


def _options(service: AnyService) -> Iterator[tuple[str, Data]]:
    yield "defaults", {}
    yield from _OF_EVERY_SERVICE.items()
    for option, field in service.options.model_fields.items():
        if field.annotation is bool and option != "gpu_shared":
            yield f"{option} = {not field.default}", {option: not field.default}
        if option == "extra_arguments":
            yield "extra arguments", {option: ["--flag", "a: {b} # $HOME \"'\n"]}


def _models(service: AnyService) -> list[Data]:
    """What it runs by default: a model, if it cannot do without one."""
    needs_one = next(iter(service.problems(())), "")
    return [_model(service, service.runs)] if service.runs and needs_one else []


def _model(service: AnyService, runs: Abilities, **more: Any) -> Data:
    source = _SOURCES[runs.sources[0]]
    return {"name": "m", "service": service.name, "task": runs.tasks[0], **source, **more}


def _model_variants(service: AnyService, directory: Path) -> Iterator[tuple[str, list[Data]]]:
    """Each option of a model that it honours, with a value that is no default."""
    if (runs := service.runs) is None:
        return
    given = {key: value for key, value in _PARAMETERS.items() if key in runs.parameters}
    variants: dict[str, Data] = {
        **{f"task {task}": {"task": task} for task in runs.tasks},
        **{f"cache {kind}": {"cache_type": kind} for kind in runs.cache_types},
        "parameters": {"parameters": given},
        "four requests": {"parallel": 4},
    }
    if runs.adapter:
        (directory / "lora.gguf").write_bytes(b"")
        variants["an adapter"] = {"adapter": str(directory / "lora.gguf")}
    if runs.adapters:
        variants["adapters"] = {"adapters": [write_adapter(directory / "style")]}
    if runs.parsers:
        variants["parsers"] = {"tool_parser": "hermes", "reasoning_parser": "qwen3"}
    if runs.system_prompt:
        variants["a system prompt"] = {"system_prompt": 'You are "$HOME".'}
    for what, more in variants.items():
        yield what, [_model(service, runs, **more)]
    for source in runs.sources:
        yield f"weights: {source}", [_model(service, runs) | _unpinned() | _SOURCES[source]]
    two = [_model(service, runs), _model(service, runs, name="n", resident=not runs.on_demand)]
    try:
        read_settings(_site(service, directory, two, {}))
    except SettingsError:
        return
    yield "two models", two


def _unpinned() -> Data:
    return {"revision": None, "sha256": None, "files": []}


def _site(service: AnyService, directory: Path, models: list[Data], options: Data) -> Data:
    """The service, and those that it needs with their defaults."""
    data: Data = {"services": [], "models": [], "api_clients": [{"name": "a", "sha256": _DIGEST}]}
    secret = directory / "secret"
    secret.write_text("a secret $of {the} site")
    names = [service.name]
    for name in names:
        entry = catalogue()[name]
        own = dict.fromkeys(entry.options.secret_options.values(), f"file:{secret}")
        own |= options if name == service.name else {}
        data |= {f"{name}_{key}": value for key, value in own.items()}
        data["services"].append(name)
        data["models"] += (
            models if name == service.name else [each | {"name": name} for each in _models(entry)]
        )
        needed = entry.options(**own).needed_services
        names += [each for each in needed if each not in names]
    return data
