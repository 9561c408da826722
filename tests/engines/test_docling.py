"""The contract of the double of docling-serve, kept by the real one, started as rendered.

Its models have random weights (testbed/tiny_docling.py), but for the tokenizer and those that read
text in pictures.
"""

import base64
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from llmhost.inventory.reader import read_settings
from testbed.real_docling import VERSION, declared_models, installed, models
from tests.engines.container import USER, Container, EngineImage, container
from tests.engines.contract import ROOT, Engine, run_contract

pytestmark = pytest.mark.engines

ARTIFACTS = "/opt/app-root/src/.cache/docling/models"
TESTS = "tests/unit/test_docling_contract.py"


def image() -> EngineImage:
    """Upstream's program and models at their places on this machine, and its libraries."""
    program, python = installed(), Path(sys.base_prefix)
    places = [Path("/usr"), program, models()]
    places += [] if python.is_relative_to("/usr") else [python]
    links = {f"/{name}": f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}
    links |= {f"{ARTIFACTS}/{path.name}": str(path) for path in (models() / "artifacts").iterdir()}
    environment = {"PATH": f"{program}/bin:/usr/bin:/bin"}
    return EngineImage(binds=places, links=links, environment=environment)


@contextmanager
def docling(place: Path, declared: list[dict[str, object]]) -> Iterator[Container]:
    clients = [{"name": "test", "sha256": "ab" * 32}]
    settings = read_settings({"services": ["docling"], "api_clients": clients, "models": declared})
    with container(settings, "docling", image(), place, ready_seconds=400) as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with docling(tmp_path_factory.mktemp("docling"), declared_models()) as found:
        yield found


@pytest.fixture(scope="module")
def engine(server: Container) -> Engine:
    return Engine("docling-serve", VERSION, "real", server.url)


def test_real_one_keeps_the_contract_of_the_double(
    engine: Engine, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with docling(tmp_path / "bare", []) as bare:
        urls = {"LLMHOST_CONTRACT_DOCLING": engine.url, "LLMHOST_CONTRACT_DOCLING_BARE": bare.url}
        record_property("cases", run_contract(TESTS, urls, tmp_path / "report.xml"))


def test_text_in_a_picture_is_read(engine: Engine) -> None:
    """Of the whole page: the random layout model finds no text to read."""
    picture = base64.b64encode((ROOT / "tests/unit/data/sentence.png").read_bytes()).decode()
    source = {"kind": "file", "filename": "a.png", "base64_string": picture}
    body = {"sources": [source], "options": {"force_ocr": True}}
    answer = httpx.post(f"{engine.url}/v1/convert/source", json=body, timeout=300).json()
    assert sorted(answer["document"]["md_content"].split()) == ["A", "an", "animal.", "cat", "is"]


def test_it_runs_as_another_user_and_is_healthy(server: Container, engine: Engine) -> None:
    assert server.is_healthy()
    assert httpx.get(f"{engine.url}/version").json()["docling-serve"] == VERSION
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    assert (
        f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in status and "CapEff:\t0000000000000000" in status
    )
