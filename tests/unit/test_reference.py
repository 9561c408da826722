"""The option reference is never stale."""

from pathlib import Path

from llmhost.docs.reference import reference
from llmhost.inventory.reader import known_keys

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "stale; run script/docs"


def test_every_key_of_an_inventory_is_on_the_page() -> None:
    page = reference()
    assert [key for key in known_keys() if f"`{key}`" not in page] == []
