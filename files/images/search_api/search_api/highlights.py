"""Where a text has the words of a query."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

import snowballstemmer

from search_api.keywords import _SYLLABLES, DETECT, pairs

_WORD = re.compile("[\\w\u0300-\u036f\u0653-\u0655\u3099\u309a]+")
"""Also with accents that are characters of their own, which decomposed text has."""
_MOST = 32


def highlights(text: str, query: str, language: str) -> list[tuple[int, int]]:
    """Positions of words that share their stem with a word of the query: from, and up to."""
    wanted = {stem for stem, _, _ in _stems(query, language)}
    found: list[tuple[int, int]] = []
    for stem, start, end in _stems(text, language):
        if stem not in wanted:
            continue
        if found and start <= found[-1][1]:  # pairs of letters overlap
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found[:_MOST]


def words_of_text(text: str) -> list[str]:
    """All words, in order."""
    return _WORD.findall(text)


def _stems(text: str, language: str) -> Iterator[tuple[str, int, int]]:
    for word in _WORD.finditer(text):
        if _SYLLABLES.search(_normal(word[0])):
            yield from _letters(word[0], word.start())
        else:
            yield _stem(word[0], language), word.start(), word.end()


def _letters(word: str, at: int) -> Iterator[tuple[str, int, int]]:
    places = _places(word)
    for match in _SYLLABLES.finditer(_normal(word)):
        for number, pair in enumerate(pairs(match[0]), match.start()):
            yield pair, at + places[number][0], at + places[number + len(pair) - 1][1]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _places(word: str) -> list[tuple[int, int]]:
    """For each character of the word in normal form, what it is made of: from, and up to."""
    parts: list[str] = []
    for character in word:
        if parts and _normal(parts[-1] + character) != _normal(parts[-1]) + _normal(character):
            parts[-1] += character
        else:
            parts.append(character)
    ends = accumulate(map(len, parts))
    return [
        (end - len(part), end) for part, end in zip(parts, ends, strict=True) for _ in _normal(part)
    ]


@lru_cache(maxsize=65536)
def _stem(word: str, language: str) -> str:
    plain = _normal(word).lower()
    return plain if language in ("none", DETECT) else str(_stemmer(language).stemWord(plain))


@lru_cache
def _stemmer(language: str) -> snowballstemmer.stemmer:
    return snowballstemmer.stemmer(language)
