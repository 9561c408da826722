"""Keywords: Qdrant splits a text into words, stems and weighs them (BM25); scripts without spaces
are split here."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

from qdrant_client import models

Language = Literal[
    "none", "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek",
    "hungarian", "italian", "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish",
    "turkish",
]  # fmt: skip
"""Languages with both a stemmer and stop words in Qdrant; `none` has neither: Chinese, Japanese,
Korean and mixed collections."""

LANGUAGES: tuple[str, ...] = get_args(Language)
DETECT = "detect"
"""In place of a language that the first documents decide."""
MODEL = "qdrant/bm25"
K1, B = 1.2, 0.75
USUAL_WORDS = 100.0
"""Mean length of a text in words, before the first texts of a collection show the true one."""

# Scripts whose words are not the unit of meaning: Korean endings stick to their nouns, Chinese and
# Japanese put no spaces.
_SYLLABLES = re.compile(r"[\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+")


def spaced(text: str) -> str:
    """The text in normal form, with pairs of letters for words in such scripts."""
    return _SYLLABLES.sub(
        lambda match: f" {' '.join(pairs(match[0]))} ", unicodedata.normalize("NFKC", text)
    )


def pairs(letters: str) -> list[str]:
    """Each two neighbours; a single letter is a word."""
    return ["".join(pair) for pair in pairwise(letters)] if letters[1:] else [letters]


def document(text: str, language: str, mean_words: float) -> models.Document:
    """A text that Qdrant turns into a sparse vector."""
    options: dict[str, Any] = {"k": K1, "b": B, "avg_len": mean_words}
    if language in ("none", DETECT):
        # The language would be English.
        options |= {"stemmer": {"type": "none"}, "stopwords": {"languages": [], "custom": []}}
    else:
        options["language"] = language
    return models.Document(text=spaced(text), model=MODEL, options=options)


def length(weights: Sequence[float], mean_words: float) -> float:
    """Length in words of a text with these weights, that were computed with `mean_words`.

    A word that occurs once weighs (k + 1) / (1 + k (1 - b + b · length / mean)), so
    the least weight shows Qdrant's own count of words, without stop words.
    """
    return max(1.0, (((K1 + 1) / min(weights) - 1) / K1 - 1 + B) * mean_words / B)
