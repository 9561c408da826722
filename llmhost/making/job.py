"""What is to be made, and what a way to make it offers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llmhost.making.fetch import Say
from llmhost.making.reranking import Asked
from llmhost.making.tools import Tools
from llmhost.models.made import file_name
from llmhost.options.derive import Derive
from llmhost.options.model import Model
from llmhost.options.policy import ModelPolicy


@dataclass(frozen=True)
class Job:
    """A model to make. `source` has the pins of the origin, `directory` is that of results,
    `source_bytes` is 0 if it is unknown."""

    source: Model
    derive: Derive
    directory: Path
    source_bytes: int = 0
    mirrors: Mapping[str, str] = field(default_factory=dict)
    token: str = ""
    policies: tuple[ModelPolicy, ...] = ()

    @property
    def file(self) -> Path:
        """The result, a file or a directory."""
        return self.directory / file_name(self.source.source, self.derive.recipe)

    @property
    def drafts(self) -> Path:
        """Directory of unfinished files."""
        return self.directory / f"{self.file.name}.draft"

    @property
    def converts(self) -> bool:
        """Whether the source is a repository, which is converted first."""
        return bool(self.source.files)


@dataclass(frozen=True)
class Speed:
    """What a model needs and does: the largest memory in bytes, and a rate."""

    memory_bytes: int
    rate: float
    unit: str


Vectors = list[list[float]]


@dataclass(frozen=True)
class Embedded:
    """Vectors of several lists of texts by one model."""

    vectors: Sequence[Vectors]
    speed: Speed


@dataclass(frozen=True)
class Scored:
    """A score for each text of several questions, by one model that reranks."""

    scores: Sequence[Sequence[float]]
    speed: Speed


class Way(Protocol):
    """A way to make a model and to measure both, the source and the result."""

    def needed(self, job: Job) -> Iterator[str]:
        """Names of its tools."""

    def build(
        self, job: Job, tools: Tools, source: Path, drafts: Path, step: Say
    ) -> tuple[Path, Path]:
        """What to measure as the source, and the result; unfinished files are in `drafts`."""

    def perplexity(self, job: Job, tools: Tools, file: Path, text: str) -> float:
        """Of a text file, by a file of `build`."""

    def generation(self, job: Job, tools: Tools, file: Path) -> Speed:
        """Of a file of `build` that generates."""

    def embedded(
        self, job: Job, tools: Tools, file: Path, source: Path, texts: Sequence[Sequence[str]]
    ) -> Embedded:
        """Vectors by a file of `build`; `source` is the fetched one."""

    def scored(
        self, job: Job, tools: Tools, file: Path, source: Path, asked: Sequence[Asked]
    ) -> Scored:
        """Scores by a file of `build`; `source` is the fetched one."""
