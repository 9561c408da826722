"""What the services ask of a host's GPUs, compared with those that it really has."""

from pathlib import Path
from typing import Any

import pytest

from llmhost.driver_policy import driver_policy
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from llmhost.units import GIB
from llmhost.vram.plan import vram_plan
from testbed import tiny_model

UUID = "GPU-5b1c3ad6-0000-4000-8000-00000000000a"


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    """A service whose model was measured to take 10 GiB."""
    path = tmp_path / "tiny.gguf"
    model = {"name": "tiny", "sha256": tiny_model.write(path), "source": str(path)}
    return {
        "services": ["llamacpp"],
        "models": [model | {"service": "llamacpp", "vram_gib": 10.0}],
        "api_clients": [{"name": "test", "sha256": "cd" * 32}],
    }


def test_settings_become_a_policy(site: dict[str, Any]) -> None:
    options = {"llamacpp_gpu": 0, "llamacpp_cuda": "12.8", "nvidia_driver_power_limit_watts": 300}
    policy = driver_policy(read_settings(site | options))
    assert policy.requests["llamacpp"].gpus == ("0",)
    assert policy.wish.cuda == {"llamacpp": "12.8"}
    assert (policy.managed, policy.power_limit_watts) == (True, 300)


@pytest.mark.parametrize(
    ("granted", "gib", "sentence"),
    [
        ((0,), [16], None),
        (
            (0,),
            [8],
            "GPU 0 has 8.00 GiB, of which 7.50 GiB are available, and the models need 10.00",
        ),
        ((1,), [8, 16], None),
        ((1,), [16, 8], "GPU 1 has 8.00 GiB"),
        ((0, 1), [8, 8], None),
        # A GPU that shares the host's memory tells no size of its own.
        ((0,), [0], None),
    ],
)
def test_models_that_the_real_gpu_can_not_hold_are_told(
    site: dict[str, Any], granted: tuple[int, ...], gib: list[int], sentence: str | None
) -> None:
    settings = read_settings(site | {"llamacpp_gpu_count": len(granted)})
    sizes = [each * GIB for each in gib]
    told = list(driver_policy(settings).shortfalls({"llamacpp": granted}, sizes))
    assert (sentence is None and told == []) or (sentence and sentence in told[0])


def planned(site: dict[str, Any], **options: object) -> Settings:
    return read_settings(site | {"vram_gpus_gib": [16.0, 16.0]} | options)


def test_ledger_follows_numbers_and_counts_and_leaves_uuids_to_the_host(
    site: dict[str, Any],
) -> None:
    by_count = planned(site, llamacpp_gpu_count=2)
    plan = vram_plan(by_count, by_count.vram.gpu_bytes)
    assert [ledger.peak_bytes for ledger in plan.ledgers] == [5 * GIB, 5 * GIB]
    by_uuid = planned(site, llamacpp_gpu=UUID)
    plan = vram_plan(by_uuid, by_uuid.vram.gpu_bytes)
    assert [ledger.peak_bytes for ledger in plan.ledgers] == [0, 0]
    assert (plan.on_host, plan.uncounted) == (("llamacpp",), ())
    on_host = vram_plan(by_uuid, by_uuid.vram.gpu_bytes, {"llamacpp": (1,)})
    assert [ledger.peak_bytes for ledger in on_host.ledgers] == [0, 10 * GIB]


def test_more_gpus_than_are_declared_are_refused(site: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        planned(site, llamacpp_gpu_count=3)
    assert "asks for 3 GPUs, and 2 of" in refused.value.problems[0].what
