"""Highlights, whatever form the characters of the text and the query have."""

import unicodedata

import pytest

from search_api.highlights import highlights

TEXTS = [
    ("Das Café ist schön", "café", "none", ["Café"]),
    ("서울에서 좋은 음식점을 찾습니다", "음식점", "none", ["음식점"]),
    ("東京のガイドです", "ガイド", "none", ["ガイド"]),
    ("Die Häuser sind alt", "Häuser", "german", ["Häuser"]),
]


@pytest.mark.parametrize(("text", "query", "language", "marked"), TEXTS)
@pytest.mark.parametrize(("of_text", "of_query"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_decomposed_words_are_highlighted(
    text: str, query: str, language: str, marked: list[str], of_text: str, of_query: str
) -> None:
    text = unicodedata.normalize(of_text, text)  # type: ignore[arg-type]
    found = highlights(text, unicodedata.normalize(of_query, query), language)  # type: ignore[arg-type]
    expected = [unicodedata.normalize(of_text, each) for each in marked]  # type: ignore[arg-type]
    assert [text[start:end] for start, end in found] == expected


def test_character_that_stands_for_several_is_highlighted_whole() -> None:
    text = "ｶﾞｲﾄﾞ ﬁne"
    found = highlights(text, "ガイド fine", "none")
    assert [text[start:end] for start, end in found] == ["ｶﾞｲﾄﾞ", "ﬁne"]
