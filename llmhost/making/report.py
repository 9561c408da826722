"""What `llmhost model make` reports: each model before and after."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmhost.models.made import result_digest

SCHEMA = 1


@dataclass(frozen=True)
class Figures:
    """Bytes of the weights, largest memory of the program that ran them, and its speed on the
    controller; `unit` is `tokens/s`, `embeddings/s` or `scores/s`."""

    bytes: int
    memory_bytes: int
    rate: float
    unit: str


@dataclass(frozen=True)
class Measure:
    """One evaluation: `value` compares after with before, and met the `limit`."""

    measure: str
    reference: str
    before: float
    after: float
    value: float
    limit: float


@dataclass(frozen=True)
class MadeModel:
    """A made model; `file` is in `models.made`, `sha256` is of a directory the digest of its
    list of files."""

    name: str
    file: str
    sha256: str
    source_sha256: str
    tools: dict[str, str]
    before: Figures
    after: Figures
    evaluations: tuple[Measure, ...]


@dataclass(frozen=True)
class MadeReport:
    """All models that were made, or had been made as declared."""

    schema: int
    models: tuple[MadeModel, ...]


def made_report(entries: Mapping[str, Mapping[str, Any]]) -> MadeReport:
    """From entries of the lock file, by the name of the model."""
    return MadeReport(SCHEMA, tuple(_model(name, each) for name, each in entries.items()))


def _model(name: str, entry: Mapping[str, Any]) -> MadeModel:
    evaluations = (
        {key: value for key, value in each.items() if key != "sha256"}
        for each in entry["evaluations"]
    )
    return MadeModel(
        name=name,
        file=entry["file"],
        sha256=result_digest(entry),
        source_sha256=entry["input"],
        tools=dict(entry["tools"]),
        before=Figures(**entry["report"]["before"]),
        after=Figures(**entry["report"]["after"]),
        evaluations=tuple(Measure(**each) for each in evaluations),
    )
