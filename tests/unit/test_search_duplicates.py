"""Near-duplicates, judged by licences of installed packages: what their authors call the same
licence is nearly the same text, but for names and years; another licence is not."""

import re
from importlib import metadata

import pytest

from search_api.duplicates import Distinct

PASSAGE = 2000


def _licences() -> dict[str, list[str]]:
    """Texts by the name that the package's metadata gives them."""
    texts: dict[str, list[str]] = {}
    for package in metadata.distributions():
        name = package.metadata.json.get("license_expression")
        for file in package.files or []:
            if name and re.fullmatch(r"(?i)licen[cs]e(\.txt|\.md)?", file.name):
                text = file.locate().read_text(errors="replace")  # type: ignore[attr-defined]
                texts.setdefault(str(name), []).append(text[:PASSAGE])
                break
    return texts


@pytest.mark.parametrize("licence", ["MIT", "Apache-2.0"])
def test_same_licence_is_nearly_the_same_text(licence: str) -> None:
    texts = _licences()[licence]
    assert len(texts) > 10
    distinct = Distinct()
    left = sum(distinct.add(text) for text in texts)
    assert left <= len(texts) * 0.3


def test_other_licence_is_another_text() -> None:
    texts = _licences()
    distinct = Distinct()
    for licence in ("MIT", "Apache-2.0", "BSD-3-Clause"):
        assert distinct.add(texts[licence][0]), licence


def test_text_without_a_word_is_a_text() -> None:
    distinct = Distinct()
    assert [distinct.add(text) for text in ("!", "?", "!", "one", "One.", "一二三", "一二四")] == [
        True, True, False, True, False, True, True,
    ]  # fmt: skip
