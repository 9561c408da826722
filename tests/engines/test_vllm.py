"""The contract of the double of vLLM, kept by the real engine: same command, same environment."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from testbed.real_vllm import VERSION, real_vllm, tiny_model
from tests.engines.contract import Engine, run_contract
from tests.integration.local_gateway import free_ports
from tests.monitoring.metrics import offered, recorded
from tests.unit.vllm_site import hub_directory, site_of, started_as

pytestmark = pytest.mark.engines

# Without compilation, and with a cache that does not take most of the memory.
SMALL = ["--enforce-eager", "--kv-cache-memory-bytes", "268435456"]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    directory = tmp_path_factory.mktemp("vllm")
    model = hub_directory(tiny_model(directory / "qwen3"))
    first, second = free_ports(2)
    found = {"": f"http://127.0.0.1:{first}", "_POOLING": f"http://127.0.0.1:{second}"}
    generate = started_as(site_of(model, extra_arguments=SMALL), directory, first)
    embed = site_of({**model, "task": "embed"}, extra_arguments=SMALL)
    pooling = started_as(embed, directory, second)
    with (
        real_vllm(*generate, found[""], directory / "generate.log"),
        real_vllm(*pooling, found["_POOLING"], directory / "pooling.log"),
    ):
        yield found


@pytest.fixture(scope="module")
def engine(urls: dict[str, str]) -> Engine:
    return Engine("vLLM", VERSION, "real", urls[""])


def test_real_engine_keeps_the_contract_of_the_double(
    engine: Engine,
    urls: dict[str, str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    named = {f"LLMHOST_CONTRACT_VLLM{kind}": url for kind, url in urls.items()}
    tests = "tests/unit/test_vllm_contract.py"
    record_property("cases", run_contract(tests, named, tmp_path / "report.xml"))


def test_recorded_metrics_are_those_of_the_real_engine(engine: Engine) -> None:
    """The dashboards' queries are tested with the recording (tests/integration/test_dashboards.py).
    A newer vLLM may have more."""
    body = {"model": httpx.get(f"{engine.url}/v1/models").json()["data"][0]["id"], "prompt": "Hi"}
    answer = httpx.post(f"{engine.url}/v1/completions", json={**body, "max_tokens": 8}, timeout=300)
    assert answer.status_code == 200
    found = offered(httpx.get(f"{engine.url}/metrics").text)
    known = {name: labels for name, labels in recorded("vllm").items() if name.startswith("vllm:")}
    assert {name for name, labels in known.items() if not labels <= found.get(name, set())} == set()
