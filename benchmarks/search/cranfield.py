"""The Cranfield collection: abstracts on aerodynamics, questions, and judgements of relevance."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DOCUMENT = re.compile(r"<docno>(\d+)</docno>.*?<title>(.*?)</title>.*?<text>(.*?)</text>", re.S)
_QUESTION = re.compile(r"<title>(.*?)</title>", re.S)


@dataclass(frozen=True)
class Cranfield:
    """Documents by number, questions, and what is relevant for each of them."""

    documents: dict[str, str]
    questions: list[str]
    relevant: list[set[str]]

    @classmethod
    def read(cls, directory: Path) -> "Cranfield":
        """cran.all.1400.xml, cran.qry.xml and cranqrel.trec.txt. Questions join judgements by
        position; a grade above 0 is relevant; two documents are empty."""
        found = _DOCUMENT.findall((directory / "cran.all.1400.xml").read_text())
        documents = {number: _plain(text) or _plain(title) for number, title, text in found}
        questions = _QUESTION.findall((directory / "cran.qry.xml").read_text())
        relevant: list[set[str]] = [set() for _ in questions]
        for line in (directory / "cranqrel.trec.txt").read_text().splitlines():
            question, _, document, grade = line.split()
            if int(grade) > 0:
                relevant[int(question) - 1].add(document)
        kept = {number: text for number, text in documents.items() if text}
        return cls(kept, [_plain(each) for each in questions], relevant)


def _plain(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class Quality:
    """Means over questions."""

    precision_at_5: float
    recall_at_10: float
    ndcg_at_10: float


def judge(found: Sequence[Sequence[str]], relevant: Sequence[set[str]]) -> Quality:
    """Rankings, the best first, against what is relevant."""
    pairs = [*zip(found, relevant, strict=True)]
    return Quality(
        _mean([len(right & {*names[:5]}) / 5 for names, right in pairs]),
        _mean([len(right & {*names[:10]}) / len(right) for names, right in pairs if right]),
        _mean([_ndcg(names, right) for names, right in pairs if right]),
    )


def _ndcg(names: Sequence[str], right: set[str]) -> float:
    gained = sum(1 / math.log2(n + 2) for n, name in enumerate(names[:10]) if name in right)
    return gained / sum(1 / math.log2(n + 2) for n in range(min(10, len(right))))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
