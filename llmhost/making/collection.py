"""A collection for search in BEIR's form, and nDCG@10 of embeddings on it. Pure but for reading.

Format: https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset
"""

import heapq
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import Any

Vector = Sequence[float]

_BEST = 10


class CollectionError(ValueError):
    """Why a collection or a text cannot be used; the text continues "the evaluation"."""


@dataclass(frozen=True)
class Collection:
    """Texts by id, questions by id, and the grade of relevant texts by question and text."""

    documents: Mapping[str, str]
    questions: Mapping[str, str]
    judged: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls, directory: Path) -> "Collection":
        """`corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv`. Raises CollectionError."""
        documents = dict(_texts(directory / "corpus.jsonl"))
        questions = dict(_texts(directory / "queries.jsonl"))
        judged: dict[str, dict[str, float]] = {}
        for question, document, grade in _judgements(directory / "qrels" / "test.tsv"):
            if grade > 0 and question in questions and document in documents:
                judged.setdefault(question, {})[document] = grade
        if not judged:
            raise CollectionError(f"{directory} has no question with a relevant document")
        return cls(documents, {each: questions[each] for each in judged}, judged)


def lines_of(path: Path) -> list[str]:
    """Texts of a file with one in each line. Raises CollectionError."""
    found = [line.strip() for _, line in _lines(path)]
    if not found:
        raise CollectionError(f"{path} is empty; write a text in each line")
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers. Not by splitlines: texts, and strings in JSON,
    may have other characters that end a line, such as U+2028."""
    lines = enumerate(_read(path).split("\n"), 1)
    return [(number, line) for number, line in lines if line.strip()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise CollectionError(f"{path} does not exist; write a path on the controller") from None
    except (OSError, ValueError):
        raise CollectionError(f"{path} cannot be read as text") from None


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in _lines(path):
        try:
            record: Any = json.loads(line)
            text = " ".join(filter(None, (str(record.get("title") or ""), str(record["text"]))))
            yield str(record["_id"]), text
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            example = '{"_id": "1", "text": "…"}'
            raise CollectionError(f"{path} has no record such as {example} in line {number}") from (
                None
            )


def _judgements(path: Path) -> Iterator[tuple[str, str, float]]:
    for number, line in _lines(path)[1:]:
        try:
            question, document, grade = line.split("\t")
            yield question, document, float(grade)
        except ValueError:
            raise CollectionError(
                f"{path} has no question, document and grade, separated by tabs, in line {number}"
            ) from None


def is_vector(found: Sequence[float | None]) -> bool:
    """Whether it has a direction: llama.cpp's server writes null for what is no number."""
    numbers = [each for each in found if each is not None and math.isfinite(each)]
    return len(numbers) == len(found) and any(numbers)


def cosine(one: Vector, other: Vector) -> float:
    """Cosine similarity."""
    product: float = sum(map(mul, one, other))
    return product / math.sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))


def agreement(before: Sequence[Vector], after: Sequence[Vector]) -> float:
    """Mean cosine similarity of the same texts' vectors."""
    return sum(map(cosine, before, after)) / len(before)


def ndcg(
    collection: Collection, documents: Mapping[str, Vector], questions: Mapping[str, Vector]
) -> float:
    """Mean nDCG@10 over the questions: texts ranked by cosine similarity, with linear gains as
    trec_eval has them."""
    lengths = {name: math.sqrt(sum(map(mul, each, each))) for name, each in documents.items()}

    def found(question: Vector) -> list[str]:
        scores = {
            name: sum(map(mul, question, vector)) / lengths[name]
            for name, vector in documents.items()
        }
        return heapq.nlargest(_BEST, scores, key=scores.__getitem__)

    values = [
        gain([grades.get(name, 0.0) for name in found(questions[question])])
        / gain(sorted(grades.values(), reverse=True)[:_BEST])
        for question, grades in collection.judged.items()
    ]
    return sum(values) / len(values)


def gain(grades: Sequence[float]) -> float:
    """Discounted cumulative gain of grades, the best place first."""
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades))
