"""The real vLLM, for CPUs, loads what `llmhost model make` has compressed, and answers with it."""

from pathlib import Path

import httpx
import pytest

from llmhost.inventory.reader import read_settings
from testbed.real_vllm import VERSION, real_vllm
from tests.engines.contract import Engine
from tests.integration.local_gateway import free_ports
from tests.integration.test_compressed import made, site
from tests.unit.vllm_site import started_as

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

_SMALL = ["--kv-cache-memory-bytes", "268435456", "--enforce-eager"]


@pytest.fixture
def engine() -> Engine:
    return Engine("vLLM", VERSION, "real")


@pytest.mark.usefixtures("engine")
def test_real_engine_answers_with_eight_bit_integers(tmp_path: Path) -> None:
    """The scheme for which vLLM has kernels on CPUs. What it loses is not judged here: with this
    source and a short calibration, it no longer names the capital of France, as the source does."""
    data = site(tmp_path, "W8A8", 10)
    made(tmp_path)
    (found,) = read_settings(data).models
    pins = [file.model_dump() for file in found.files]
    model = {"name": "writer", "service": "vllm", "source": found.source, "files": pins}
    data["models"] = [model | {"context_tokens": 512}]
    data["vllm_extra_arguments"] = _SMALL
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command, environment = started_as(data, tmp_path, port)
    with real_vllm(command, environment, url, tmp_path / "log"):
        body = {"model": "writer", "max_tokens": 24, "temperature": 0}
        question = {"role": "user", "content": "Name three colors."}
        answer = httpx.post(
            f"{url}/v1/chat/completions", json=body | {"messages": [question]}, timeout=600
        ).raise_for_status()
    said = answer.json()["choices"][0]["message"]["content"].lower()
    assert sum(color in said for color in ("red", "blue", "green", "yellow", "orange")) > 1
    assert "CompressedTensorsW8A8Int8" in (tmp_path / "log").read_text()
