"""Where a text has the words of a query."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import snowballstemmer

from search_api.keywords import _SYLLABLES, DETECT, pairs

_WORD = re.compile(r"\w+")
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


def _stems(text: str, language: str) -> Iterator[tuple[str, int, int]]:
    for word in _WORD.finditer(text):
        if _SYLLABLES.search(word[0]):
            yield from _letters(word[0], word.start())
        else:
            yield _stem(word[0], language), word.start(), word.end()


def _letters(word: str, at: int) -> Iterator[tuple[str, int, int]]:
    for match in _SYLLABLES.finditer(word):
        for number, pair in enumerate(pairs(match[0])):
            start = at + match.start() + number
            yield pair, start, start + len(pair)


@lru_cache(maxsize=65536)
def _stem(word: str, language: str) -> str:
    plain = unicodedata.normalize("NFKC", word).lower()
    return plain if language in ("none", DETECT) else str(_stemmer(language).stemWord(plain))


@lru_cache
def _stemmer(language: str) -> snowballstemmer.stemmer:
    return snowballstemmer.stemmer(language)
