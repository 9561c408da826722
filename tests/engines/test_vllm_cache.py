"""The real vLLM uses the cache that llmhost keeps for it: a second start compiles nothing."""

from itertools import islice
from pathlib import Path

import pytest

from testbed.real_vllm import VERSION
from tests.engines.contract import Engine
from tests.engines.vllm_starts import Start, starts

pytestmark = pytest.mark.engines


@pytest.fixture
def engine() -> Engine:
    return Engine("vLLM", VERSION, "real")


def programs(start: Start) -> dict[str, int]:
    """What was compiled, and when."""
    return {path: changed for path, changed in start.files.items() if path.endswith(".so")}


@pytest.mark.usefixtures("engine")
def test_second_start_compiles_nothing(tmp_path: Path) -> None:
    first, second = islice(starts(tmp_path), 2)
    assert programs(first) and programs(second) == programs(first)
    assert second.text == first.text
    # vLLM notes in its own keys what a start has loaded, and rewrites the compiled graph.
    assert len(second.files) <= len(first.files) + 1
    print(f"healthy after {first.seconds:.0f} s, then after {second.seconds:.0f} s")
