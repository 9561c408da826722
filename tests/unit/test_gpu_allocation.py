"""Who gets which GPU."""

import pytest

from llmhost.gpu_allocation import GpuRequest, allocate, cdi_names
from llmhost.nvidia_driver import Unsatisfiable
from llmhost.nvidia_state import Gpu


def gpus(count: int) -> list[Gpu]:
    return [
        Gpu(index, f"GPU-{index}", "", "580.159.03", True, None, False, "x")
        for index in range(count)
    ]


def refused(requests: dict[str, GpuRequest], count: int) -> str:
    with pytest.raises(Unsatisfiable) as error:
        allocate(requests, gpus(count))
    return str(error.value)


def test_two_services_that_ask_for_one_gpu_get_different_ones() -> None:
    requests = {"ollama": GpuRequest(1), "vllm": GpuRequest(1)}
    assert allocate(requests, gpus(2)) == {"ollama": ("GPU-0",), "vllm": ("GPU-1",)}


def test_named_gpus_are_given_before_counted_ones() -> None:
    requests = {"ollama": GpuRequest(1), "vllm": GpuRequest(("0",))}
    assert allocate(requests, gpus(2)) == {"ollama": ("GPU-1",), "vllm": ("GPU-0",)}


def test_an_index_and_a_uuid_name_the_same_gpu() -> None:
    assert allocate({"a": GpuRequest(("1", "GPU-0"))}, gpus(2)) == {"a": ("GPU-1", "GPU-0")}


def test_gpu_is_not_shared_unless_both_agree() -> None:
    one, two = GpuRequest(("0",), shared=True), GpuRequest(("0",))
    for requests in ({"a": one, "b": two}, {"a": two, "b": one}, {"a": two, "b": two}):
        assert "both take GPU GPU-0" in refused(requests, 1)
    assert allocate({"a": one, "b": one}, gpus(1)) == {"a": ("GPU-0",), "b": ("GPU-0",)}


def test_services_that_share_spread_over_the_gpus_first() -> None:
    shared = GpuRequest(1, shared=True)
    found = allocate({"a": shared, "b": shared, "c": shared}, gpus(2))
    assert found == {"a": ("GPU-0",), "b": ("GPU-1",), "c": ("GPU-0",)}


@pytest.mark.parametrize(("wanted", "there"), [(1, 0), (2, 1), (3, 2)])
def test_more_gpus_than_there_are_is_refused(wanted: int, there: int) -> None:
    assert f"asks for {wanted} GPU(s)" in refused({"vllm": GpuRequest(wanted)}, there)


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are() -> None:
    sentence = refused({"vllm": GpuRequest(("GPU-7",))}, 1)
    assert "GPU-7" in sentence and "0 = GPU-0" in sentence


def test_on_wsl_every_gpu_is_the_only_name() -> None:
    assert cdi_names(("GPU-0", "GPU-1"), wsl=False) == (
        "nvidia.com/gpu=GPU-0",
        "nvidia.com/gpu=GPU-1",
    )
    assert cdi_names(("GPU-1",), wsl=True) == ("nvidia.com/gpu=all",)
    assert cdi_names((), wsl=True) == ()
