"""The sample inventories hold nothing but valid options and marked placeholders."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    """Data of the sample's only host, as pyinfra merges it."""
    pyinfra = Path(sys.executable).with_name("pyinfra")
    command = [str(pyinfra), "inventory/llm.py", "debug-inventory", "--json"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (host,) = json.loads(shown.stdout)
    data: dict[str, Any] = host["data"]
    return data


def test_sample_lacks_only_what_its_marks_ask_for(sample: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(sample)
    assert all("zeros of the sample inventory" in problem.what for problem in caught.value.problems)


def test_sample_is_valid_once_its_placeholders_are_filled(sample: dict[str, Any]) -> None:
    model = sample["models"][0] | {"revision": "a" * 40, "sha256": "b" * 64}
    client = {"name": "main-app", "sha256": "c" * 64}
    settings = read_settings(sample | {"models": [model], "api_clients": [client]})
    assert settings.services == ("llamacpp",)
