"""Long texts in passages that overlap: an embedding model reads only so much."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_PLACE = re.compile(r"\n\s*\n|[.!?。！？]\s+|\s+")


@dataclass(frozen=True)
class Passage:
    """A part of a text, by the position of its first character."""

    start: int
    text: str


def split(text: str, characters: int, overlap: int) -> Iterator[Passage]:
    """Passages of at most so many characters and about the same length, which begin and end at a
    space where there is one.

    0 characters: the text as it is.
    """
    longest = _even(len(text), characters, min(overlap, characters - 1))
    start = 0
    while characters and len(text) - start > characters:
        end = _place(text, start + longest // 2, start + longest)
        yield Passage(start, text[start:end])
        start = _after_space(text, max(end - overlap, start + 1), end)
    yield Passage(start, text[start:])


def _even(size: int, characters: int, overlap: int) -> int:
    """Most characters of a passage, so that all are about as long: BM25 prefers short texts, and a
    short rest would come before whole documents. A tenth is left for the search of a good end."""
    if size <= characters or characters < 1:
        return characters
    number = math.ceil((size - overlap) / (characters - overlap))
    return min(characters, math.ceil((size + (number - 1) * overlap) / number * 1.1))


def _place(text: str, first: int, last: int) -> int:
    """The best end between two positions: after a paragraph, a sentence, a word, or the last."""
    best = max(
        _PLACE.finditer(text, first, last),
        key=lambda match: (_rank(match[0]), match.end()),
        default=None,
    )
    return best.end() if best else last


def _rank(gap: str) -> int:
    return 2 if gap.count("\n") > 1 else 1 if gap.strip() else 0


def _after_space(text: str, first: int, last: int) -> int:
    space = re.compile(r"\s+").search(text, first, last)
    return space.end() if space and space.end() < last else first
