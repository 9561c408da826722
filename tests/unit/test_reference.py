"""The option reference is never stale."""

from pathlib import Path

from llmhost.docs.reference import reference
from llmhost.inventory.reader import known_keys
from llmhost.services import catalogue
from llmhost.services.base import ServiceOptions

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "stale; run script/docs"


def test_every_key_of_an_inventory_is_on_the_page() -> None:
    page = reference()
    common = {
        f"{service}_{option}": f"SERVICE_{option}"
        for service in catalogue()
        for option in ServiceOptions.model_fields
    }
    missing = [key for key in known_keys() if f"`{key}`" not in page]
    assert [key for key in missing if f"`{common.get(key)}`" not in page] == []


def test_option_that_a_service_changes_is_in_its_own_section() -> None:
    page = reference()
    assert "`vllm_cuda`" in page and "`redis_cuda`" not in page
