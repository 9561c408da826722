"""BM25 as sparse vectors: a document's weights are made here, how rare a word is Qdrant knows.

Robertson and Zaragoza: The Probabilistic Relevance Framework: BM25 and Beyond (2009).
"""

import re
import unicodedata
import zlib
from collections import Counter
from itertools import pairwise

K1 = 1.2
B = 0.75
USUAL_LENGTH = 256
"""Length in words that counts as average: the true average would change with every document."""

_WORD = re.compile(r"\w+")
# Scripts whose words are not the unit of meaning: Korean endings stick to their nouns, Chinese and
# Japanese put no spaces.
_SYLLABLES = re.compile(r"[\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+")


def words(text: str) -> list[str]:
    """What a text is searched by: words in lower case, and pairs of letters of such scripts."""
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        found += [word] if not _SYLLABLES.search(word) else _pairs(word)
    return found


def _pairs(word: str) -> list[str]:
    pieces = [word[slice(*match.span())] for match in _SYLLABLES.finditer(word)]
    rest = [piece for piece in _SYLLABLES.split(word) if piece]
    pairs = [
        "".join(pair) for piece in pieces for pair in (pairwise(piece) if piece[1:] else [piece])
    ]
    return rest + pairs


def document_vector(text: str) -> dict[int, float]:
    """Weight of each word of a document, by the word's number."""
    counts = Counter(map(_number, words(text)))
    norm = K1 * (1 - B + B * counts.total() / USUAL_LENGTH)
    return {number: count * (K1 + 1) / (count + norm) for number, count in counts.items()}


def query_vector(text: str) -> dict[int, float]:
    """Each word of a query once; a word's rarity is Qdrant's to add."""
    return dict.fromkeys(map(_number, words(text)), 1.0)


def _number(word: str) -> int:
    """32 bits of a word. Two words of the same number would be one: one pair in four billion."""
    return zlib.crc32(word.encode())
