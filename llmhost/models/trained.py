"""Trained adapters: the base of a training job, and the card of its result. Pure.

`llmhost train` writes an adapter to `models.trained` beside the lock file, with a card that says
what it was trained on. A deploy refuses it for another base.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAINED = "models.trained"
"""Directory of adapters, beside the lock file."""

CARD = "training.json"
"""File in the directory of an adapter."""

SCHEMA = 1

Record = Mapping[str, Any]

_BASE = ("revision", "files", "token", "licence", "base_models")
"""Options of a record of `models` that a job has too."""


@dataclass(frozen=True)
class Card:
    """What an adapter was trained on: its base's source and digest, and digests of its files."""

    base: str
    base_digest: str
    files: Mapping[str, str]


def base_record(job: Record, models: Iterable[Record]) -> dict[str, Any]:
    """The base of a job as a record of `models`; empty if it has none.

    Without `base`, the source of its model is the base if it is a repository.
    """
    if job.get("base"):
        given = {key: job[key] for key in _BASE if key in job}
        return {"name": job.get("model"), "service": "vllm", "source": job["base"], **given}
    for model in models:
        if model.get("name") == job.get("model") and is_repository(str(model.get("source"))):
            # The same files as the model's: an adapter is refused for others.
            given = {key: model[key] for key in (*_BASE, "include") if key in model}
            return {"name": model["name"], "service": "vllm", "source": model["source"], **given}
    return {}


def with_base(job: Record, base: Record) -> dict[str, Any]:
    """The record of a job with its base and the pins of that."""
    pins = {key: base[key] for key in _BASE if key in base}
    return {**job, **({"base": base["source"]} if base else {}), **pins}


def read_card(directory: Path) -> Card | None:
    """The card of an adapter in this directory; none if it was not trained by llmhost."""
    try:
        found = json.loads((directory / CARD).read_text(encoding="utf-8"))
        base = found["base"]
        return Card(str(base["source"]), str(base["digest"]), dict(found["files"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def is_repository(source: str) -> bool:
    """Whether a source has several files, judged by its name."""
    if source.startswith("ollama:") or source.endswith(".gguf"):
        return False
    return not source.startswith("hf:") or source.count("/") == 1
