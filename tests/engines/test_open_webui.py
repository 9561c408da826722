"""The contract of the double of Open WebUI, kept by the real one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import environments
from tests.engines.contract import Engine, run_contract

pytestmark = pytest.mark.engines

TESTS = "tests/unit/test_open_webui_contract.py"


@pytest.fixture
def engine() -> Engine:
    return Engine("Open WebUI", environments.version("open_webui", "open-webui"), "real")


@pytest.mark.usefixtures("engine")
def test_real_one_keeps_the_contract_of_the_double(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    variables = {"LLMHOST_OPEN_WEBUI": str(environments.installed("open_webui") / "bin/python")}
    cases = run_contract(TESTS, variables, tmp_path / "report.xml", "real")
    record_property("cases", cases)
