"""What the source and the result are and do, side by side."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from llmhost.making.collection import Collection, agreement, is_vector, lines_of, ndcg
from llmhost.making.job import Job, Speed, Way
from llmhost.making.reranking import (
    Asked,
    candidates,
    pairs_of,
    rank_correlation,
    reranked_ndcg,
)
from llmhost.making.tools import MakingError, Tools
from llmhost.models.files import sha256_of
from llmhost.options.derive import Derive, Evaluation


class Measurements:
    """Of both files of a way's `build`; `source` is the fetched one."""

    def __init__(
        self, job: Job, tools: Tools, way: Way, files: tuple[Path, Path], source: Path
    ) -> None:
        self._job, self._tools, self._way = job, tools, way
        self._files, self._source = files, source
        self._speeds: list[Speed] = []

    def evaluation(self, wanted: Evaluation) -> dict[str, Any]:
        """The entry of an evaluation, whether or not its limit is met."""
        before, after, value = getattr(self, f"_{wanted.measure}")(wanted.reference)
        return {
            "measure": wanted.measure,
            "reference": wanted.reference,
            "sha256": digest_of(Path(wanted.reference)),
            "before": round(before, 6),
            "after": round(after, 6),
            "value": round(value, 6),
            "limit": wanted.at_most or wanted.at_least,
        }

    def report(self) -> dict[str, Any]:
        """Size, memory and speed, before and after."""
        if not self._speeds:
            measured = (self._way.generation(self._job, self._tools, f) for f in self._files)
            self._speeds = [*measured]
        both = zip(self._files, self._speeds, strict=True)
        before, after = ({"bytes": size_of(file), **asdict(speed)} for file, speed in both)
        return {"before": before, "after": after}

    def _perplexity(self, text: str) -> tuple[float, float, float]:
        before, after = (
            self._way.perplexity(self._job, self._tools, file, text) for file in self._files
        )
        return before, after, after / before

    def _agreement(self, text: str) -> tuple[float, float, float]:
        if self._job.source.task == "rerank":
            first, second = self._scored(pairs_of(Path(text)))
            value = rank_correlation([*chain(*first)], [*chain(*second)])
            return 1.0, value, value
        texts = lines_of(Path(text))
        before, after = self._embedded([texts])
        value = agreement(before[0], after[0])
        return 1.0, value, value

    def _ndcg(self, directory: str) -> tuple[float, float, float]:
        found = Collection.read(Path(directory))
        texts = [[*found.documents.values()], [*found.questions.values()]]
        before, after = (
            ndcg(
                found,
                dict(zip(found.documents, documents, strict=True)),
                dict(zip(found.questions, questions, strict=True)),
            )
            for documents, questions in self._embedded(texts)
        )
        return _compared(before, after, directory)

    def _rerank(self, directory: str) -> tuple[float, float, float]:
        found = Collection.read(Path(directory))
        ordered = candidates(found)
        asked = [
            (found.questions[question], [found.documents[name] for name in names])
            for question, names in ordered.items()
        ]
        before, after = (
            reranked_ndcg(found, ordered, dict(zip(ordered, scores, strict=True)))
            for scores in self._scored(asked)
        )
        return _compared(before, after, directory)

    def _embedded(self, texts: list[list[str]]) -> list[list[list[list[float]]]]:
        """Vectors of the lists of texts, by the source and by the result."""
        found = [
            self._way.embedded(self._job, self._tools, file, self._source, texts)
            for file in self._files
        ]
        self._speeds = [each.speed for each in found]
        for place, each in zip(("source", "result"), found, strict=True):
            if not all(is_vector(vector) for vectors in each.vectors for vector in vectors):
                raise MakingError(
                    f"cannot be evaluated: the {place} gives vectors of zeros, or of what is no"
                    " number; use another quantization, or another source"
                )
        return [[*each.vectors] for each in found]

    def _scored(self, asked: Sequence[Asked]) -> list[Sequence[Sequence[float]]]:
        """Scores of each question's texts, by the source and by the result."""
        found = [
            self._way.scored(self._job, self._tools, file, self._source, asked)
            for file in self._files
        ]
        self._speeds = [each.speed for each in found]
        if not all(
            math.isfinite(score) for each in found for scores in each.scores for score in scores
        ):
            raise MakingError(
                "cannot be evaluated: its scores are no numbers; use another quantization, or"
                " another source"
            )
        return [each.scores for each in found]


def _compared(before: float, after: float, directory: str) -> tuple[float, float, float]:
    if not before:
        raise MakingError(f"cannot be evaluated on {directory}: the source finds nothing there")
    return before, after, after / before


def check_limits(job: Job, evaluations: list[dict[str, Any]]) -> None:
    """Raise MakingError if a limit is missed, with by how much."""
    missed = [
        f"its {wanted.measure} on {wanted.reference} {sentence}"
        for wanted, found in zip(job.derive.evaluate, evaluations, strict=True)
        if (sentence := wanted.shortfall(found["value"]))
    ]
    if missed:
        raise MakingError(
            f"loses too much accuracy as {job.derive.recipe}, and nothing was recorded:"
            f" {'; '.join(missed)}"
        )


def digest_of(place: Path) -> str:
    """SHA-256 of a file, or of the names and digests of a directory's files."""
    if place.is_file():
        return sha256_of(place)
    lines = (f"{sha256_of(file)}  {file.relative_to(place)}\n" for file in sorted(files_in(place)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def changed_text(derive: Derive, entry: Mapping[str, Any]) -> str:
    """A text or collection that is not what an entry was measured on; empty if none. What is not on
    this controller is not compared."""
    known = {each["reference"]: each.get("sha256") for each in entry.get("evaluations", ())}
    for wanted in derive.evaluate:
        if _is_another(wanted.reference, known.get(wanted.reference)):
            return wanted.reference
    return changed_ingredient(derive, entry)


def changed_ingredient(derive: Derive, entry: Mapping[str, Any]) -> str:
    """A text that determines the result, and is not what an entry was made with; empty if none."""
    return next((t for key, t in derive.texts.items() if _is_another(t, entry.get(key))), "")


def _is_another(reference: str, digest: str | None) -> bool:
    return Path(reference).exists() and digest_of(Path(reference)) != digest


def files_in(place: Path) -> list[Path]:
    """A file, or all files of a directory."""
    return [place] if place.is_file() else [each for each in place.rglob("*") if each.is_file()]


def size_of(place: Path) -> int:
    """Bytes of a file, or of the weights in a directory."""
    found = files_in(place)
    weights = [each for each in found if each.suffix in (".onnx", ".safetensors")]
    return sum(each.stat().st_size for each in weights or found)
