"""The language of texts, as py3langid finds it."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import py3langid

_NAMES = {
    "ar": "arabic", "da": "danish", "nl": "dutch", "en": "english", "fi": "finnish",
    "fr": "french", "de": "german", "el": "greek", "hu": "hungarian", "it": "italian",
    "no": "norwegian", "nb": "norwegian", "nn": "norwegian", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "es": "spanish", "sv": "swedish", "tr": "turkish",
}  # fmt: skip
_TEXTS = 64
_CHARACTERS = 1000


def language_of(texts: Iterable[str]) -> str:
    """The language of more than half of the first texts, by their length; `none` where there is no
    such language, or no stemmer for it. Takes seconds when the model is not loaded yet."""
    votes = Counter[str]()
    for text in islice(texts, _TEXTS):
        beginning = text[:_CHARACTERS]
        code, _ = py3langid.classify(beginning)
        votes[_NAMES.get(code, "none")] += len(beginning)
    language, characters = max(votes.items(), key=lambda vote: vote[1], default=("none", 0))
    return language if characters * 2 > votes.total() else "none"
