"""Texts that are nearly the same, by the word triples that they share (Broder: On the resemblance
and containment of documents, 1997)."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from search_api.keywords import spaced

SIMILAR = 0.8
"""Least share of common triples (Jaccard)."""
_WORDS = 3
_WORD = re.compile(r"\w+")


class Distinct:
    """Texts of which no two are nearly the same."""

    def __init__(self) -> None:
        self._sizes = list[int]()
        self._with: dict[str, list[int]] = defaultdict(list)

    def of(self, results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those results whose texts differ from all earlier ones."""
        return [result for result in results if self.add(result["text"])]

    def add(self, text: str) -> bool:
        """Whether the text differs from all others; only then it is one of them."""
        triples = _triples(text)
        shared = Counter(number for triple in triples for number in self._with.get(triple, ()))
        for number, common in shared.items():
            if common >= SIMILAR * (len(triples) + self._sizes[number] - common):
                return False
        for triple in triples:
            self._with[triple].append(len(self._sizes))
        self._sizes.append(len(triples))
        return True


def _triples(text: str) -> set[str]:
    words = _WORD.findall(spaced(text).lower()) or [text]
    count = max(1, len(words) - _WORDS + 1)
    return {" ".join(words[start : start + _WORDS]) for start in range(count)}
