"""Who gets which GPU."""

from dataclasses import replace

import pytest

from llmhost.inventory.gpu_rules import gpu_problems
from llmhost.nvidia.driver import Unsatisfiable
from llmhost.nvidia.gpu_allocation import (
    GpuRequest,
    allocate,
    allocate_numbers,
    cdi_names,
    devices_of,
    wsl_note,
)
from llmhost.nvidia.state import CdiSpec, Gpu, NvidiaState
from llmhost.services.llamacpp import LlamacppOptions
from llmhost.settings import Settings


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
    assert f"asks for {wanted} GPU" in refused({"vllm": GpuRequest(wanted)}, there)


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


def test_without_a_host_numbers_stand_for_gpus_and_uuids_wait_for_it() -> None:
    requests = {"a": GpuRequest(1), "b": GpuRequest(("0",)), "c": GpuRequest(("GPU-1",))}
    assert allocate_numbers(requests, 2) == {"a": (1,), "b": (0,)}
    with pytest.raises(Unsatisfiable, match=r"there: 0, 1\)"):
        allocate_numbers({"a": GpuRequest(("2",))}, 2)


HOST = NvidiaState(
    release="ubuntu-24.04",
    machine="x86_64",
    init="systemd",
    running_kernel="6.8.0-85-generic",
    gpus=tuple(gpus(2)),
    cdi=(CdiSpec("/var/run/cdi/nvidia.yaml", "nvidia.com/gpu", ("GPU-0", "GPU-1", "all")),),
)
WSL = replace(HOST, running_kernel="6.6.87.2-microsoft-standard-WSL2")


def test_devices_are_named_as_the_cdi_spec_of_the_host_names_them() -> None:
    requests = {"a": GpuRequest(1), "b": GpuRequest(("GPU-0",))}
    found = devices_of(requests, HOST)
    assert found == {"a": ("nvidia.com/gpu=GPU-1",), "b": ("nvidia.com/gpu=GPU-0",)}
    assert wsl_note(found) == []


def test_on_wsl_a_count_becomes_all_and_the_plan_says_so() -> None:
    found = devices_of({"a": GpuRequest(1)}, WSL)
    assert found == {"a": ("nvidia.com/gpu=all",)}
    (note,) = wsl_note(found)
    assert "a will see every GPU of this host" in note


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (replace(HOST, gpus=()), "must wait until the driver lists its GPUs"),
        (replace(HOST, cdi=()), "no CDI spec describes GPU GPU-1"),
    ],
)
def test_devices_that_no_container_could_get_are_not_handed_out(
    state: NvidiaState, sentence: str
) -> None:
    with pytest.raises(Unsatisfiable, match=sentence):
        devices_of({"a": GpuRequest(("1",))}, state)


def declared(**services: LlamacppOptions) -> Settings:
    return Settings(services=tuple(services), service_options=services)


def test_settings_that_name_a_gpu_twice_are_refused() -> None:
    (problem,) = gpu_problems(declared(a=LlamacppOptions(gpu=(0, 1, 0))))
    assert "lists a GPU twice" in problem.sentence("host")


def test_settings_in_which_two_services_take_one_gpu_are_refused_unless_both_share() -> None:
    alone, shared = LlamacppOptions(gpu=0), LlamacppOptions(gpu=(0, 1), gpu_shared=True)
    (problem,) = gpu_problems(declared(a=alone, b=shared))
    assert "'a' and 'b' both use GPU 0" in problem.sentence("host")
    assert "a_gpu_shared and b_gpu_shared" in problem.sentence("host")
    agreed = LlamacppOptions(gpu=0, gpu_shared=True)
    for second in (agreed, LlamacppOptions(gpu_count=1)):
        assert list(gpu_problems(declared(a=agreed, b=second))) == []
