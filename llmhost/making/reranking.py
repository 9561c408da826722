"""Measures of models that rerank: which texts they order, nDCG@10 and rank correlation."""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import StatisticsError, correlation

from llmhost.making.collection import Collection, CollectionError, gain, lines_of

Asked = tuple[str, Sequence[str]]
"""A question, and the texts to score for it."""

CANDIDATES = 30
"""Texts for each question: as many as the search service has reranked by default."""
_BEST = 10
_WORD = re.compile(r"\w+")


def pairs_of(path: Path) -> list[Asked]:
    """Questions and texts of a file with a tab between them in each line, in its order. Raises
    CollectionError."""
    found: list[Asked] = []
    for number, line in enumerate(lines_of(path), 1):
        question, _, text = (part.strip() for part in line.partition("\t"))
        if not (question and text):
            raise CollectionError(
                f"{path} has no question and text, separated by a tab, in line {number}"
            )
        found.append((question, [text]))
    if len(found) < 2:
        raise CollectionError(f"{path} has one line; a rank correlation needs two or more")
    return found


def candidates(collection: Collection) -> dict[str, list[str]]:
    """The texts that a model orders, by question: what is relevant, the highest grade first, then
    what has the best BM25 of the rest, CANDIDATES in all. No model chooses them."""
    names = [*collection.documents]
    found = {}
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE VIRTUAL TABLE texts USING fts5(text)")
        rows = enumerate(collection.documents.values())
        database.executemany("INSERT INTO texts(rowid, text) VALUES (?, ?)", rows)
        for question, grades in collection.judged.items():
            relevant = sorted(grades, key=lambda name: -grades[name])
            others = _best(database, collection.questions[question], CANDIDATES + len(relevant))
            ranked = [names[row] for row in others]
            found[question] = [*dict.fromkeys([*relevant, *ranked])][:CANDIDATES]
    return found


def _best(database: sqlite3.Connection, question: str, number: int) -> list[int]:
    """Rows of texts with a word of the question, the best BM25 first."""
    words = " OR ".join(f'"{word}"' for word in dict.fromkeys(_WORD.findall(question)))
    if not words:
        return []
    query = "SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY bm25(texts), rowid LIMIT ?"
    return [row for (row,) in database.execute(query, (words, number))]


def reranked_ndcg(
    collection: Collection,
    ordered: Mapping[str, Sequence[str]],
    scores: Mapping[str, Sequence[float]],
) -> float:
    """Mean nDCG@10 over the questions: their candidates, the highest score first. Of equal scores,
    the candidate that is not relevant is first, so that a model that scores all alike gains
    nothing."""
    values = []
    for question, grades in collection.judged.items():
        found = [
            (-score, grades.get(name, 0.0))
            for name, score in zip(ordered[question], scores[question], strict=True)
        ]
        best = [grade for _, grade in sorted(found)[:_BEST]]
        values.append(gain(best) / gain(sorted(grades.values(), reverse=True)[:_BEST]))
    return sum(values) / len(values)


def rank_correlation(before: Sequence[float], after: Sequence[float]) -> float:
    """Spearman's rank correlation of two lists of scores, at least 2 each; -1 to 1. 0 if all scores
    of a list are equal."""
    try:
        return correlation(_ranks(before), _ranks(after))
    except StatisticsError:
        return 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """Places from 1; equal values share the mean of theirs."""
    ordered = sorted(values)
    first = {value: place for place, value in reversed([*enumerate(ordered, 1)])}
    last = {value: place for place, value in enumerate(ordered, 1)}
    return [(first[value] + last[value]) / 2 for value in values]
