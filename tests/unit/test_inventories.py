"""The sample inventories hold nothing but valid options and marked placeholders."""

from pathlib import Path

import pytest

from llmhost.cli.session import inventory_data
from llmhost.settings.problem import SettingsError
from llmhost.settings.reader import read_settings

ROOT = Path(__file__).parents[2]


def test_sample_lacks_only_what_its_marks_ask_for() -> None:
    (data,) = inventory_data(str(ROOT / "inventory" / "llm.py")).values()
    with pytest.raises(SettingsError) as caught:
        read_settings(data)
    assert all("sample's zeros" in problem.what for problem in caught.value.problems)


def test_sample_is_valid_once_its_placeholders_are_filled() -> None:
    (data,) = inventory_data(str(ROOT / "inventory" / "llm.py")).values()
    data["models"] = [{**data["models"][0], "revision": "a" * 40, "sha256": "b" * 64}]  # type: ignore[index]
    data["api_clients"] = [{"name": "main-app", "sha256": "c" * 64}]
    assert read_settings(data).services == ("llamacpp",)
