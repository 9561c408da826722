"""The toolkit's repository, its settings, and CDI specs that have gone stale."""

from dataclasses import replace

import pytest

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.nvidia.container_toolkit import (
    refresh_condition,
    stale_specs,
    toolkit_reasons,
    toolkit_repository,
)
from llmhost.nvidia.packages import TOOLKIT
from llmhost.nvidia.state import CdiSpec, DriverPackage, Gpu, NvidiaState
from llmhost.system.files import Absent, File

HOST = NvidiaState("ubuntu-24.04", "x86_64", "systemd", "6.8.0-85-generic")
WSL = replace(HOST, running_kernel="6.6.87.2-microsoft-standard-WSL2")
GPUS = tuple(
    Gpu(index, f"GPU-{index}", "", "580.159.03", True, None, False, "x") for index in (0, 1)
)
NAMES = ("0", "GPU-0", "1", "GPU-1", "all")
NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm")
FRESH = CdiSpec("/var/run/cdi/nvidia.yaml", "nvidia.com/gpu", NAMES, NODES)
ONE = replace(FRESH, devices=("0", "GPU-0", "all"))
LEFT_OVER = CdiSpec(
    "/etc/cdi/nvidia.yaml", "nvidia.com/gpu", ("GPU-0", "GPU-7", "all"), (), ("/usr/lib/old.so",)
)
OTHER = CdiSpec("/etc/cdi/amd.yaml", "amd.com/gpu", ("all",), (), ("/dev/kfd",))
UNREADABLE = CdiSpec("/etc/cdi/x.yaml", "unreadable", ())


@pytest.mark.parametrize(
    ("state", "reasons"),
    [
        (replace(HOST, gpus=GPUS, cdi=(FRESH,)), []),
        (
            replace(HOST, gpus=GPUS),
            ["no CDI spec describes GPU-0", "no CDI spec describes GPU-1"],
        ),
        (
            replace(HOST, gpus=GPUS, cdi=(replace(FRESH, gone=("/usr/lib/libcuda.so.570",)),)),
            ["/var/run/cdi/nvidia.yaml names /usr/lib/libcuda.so.570, which does not exist"],
        ),
        (
            replace(HOST, gpus=GPUS, cdi=(replace(FRESH, nodes=NODES[:1]),)),
            ["/var/run/cdi/nvidia.yaml lacks /dev/nvidia-uvm, without which CUDA fails"],
        ),
        (
            replace(HOST, gpus=GPUS[:1], cdi=(FRESH,)),
            ["/var/run/cdi/nvidia.yaml describes GPU-1, which is not on this host"],
        ),
        # What CDI does not take, or is another vendor's, is no reason.
        (replace(HOST, gpus=GPUS, cdi=(LEFT_OVER, OTHER, UNREADABLE, FRESH)), []),
        (
            replace(HOST, gpus=GPUS[:1], cdi=(LEFT_OVER,)),
            [
                "/etc/cdi/nvidia.yaml names /usr/lib/old.so, which does not exist",
                "/etc/cdi/nvidia.yaml lacks /dev/nvidia-uvm, without which CUDA fails",
            ],
        ),
        (
            replace(HOST, gpus=GPUS[:1], cdi=(ONE, replace(ONE, path="/var/run/cdi/b.json"))),
            [
                "/var/run/cdi/nvidia.yaml and /var/run/cdi/b.json both describe GPU-0, so CDI"
                " uses neither: remove one"
            ],
        ),
        (
            replace(
                HOST,
                gpus=GPUS[:1],
                cdi=(ONE, LEFT_OVER, replace(LEFT_OVER, path="/etc/cdi/b.json")),
            ),
            [
                "/etc/cdi/nvidia.yaml and /etc/cdi/b.json both describe GPU-0, so CDI uses"
                " neither: remove one"
            ],
        ),
        (
            replace(HOST, gpus=GPUS[:1], cdi=(replace(FRESH, kind="amd.com/gpu"), UNREADABLE)),
            ["no CDI spec describes GPU-0", "/etc/cdi/x.yaml cannot be read as a CDI spec"],
        ),
        (replace(WSL, gpus=GPUS, cdi=(replace(FRESH, devices=("all",), nodes=()),)), []),
        (replace(WSL, gpus=GPUS), ["no CDI spec describes the GPUs of this host"]),
    ],
)
def test_what_cdi_takes_must_hand_out_the_gpus_that_are_there(
    state: NvidiaState, reasons: list[str]
) -> None:
    assert stale_specs(state) == reasons


def test_only_what_cdi_can_resolve_can_be_given_to_a_service() -> None:
    both = replace(HOST, cdi=(FRESH, replace(FRESH, path="/var/run/cdi/b.json", devices=("all",))))
    assert both.cdi_devices == {*NAMES} - {"all"}
    assert replace(HOST, cdi=(LEFT_OVER, FRESH)).cdi_devices == {*NAMES, "GPU-7"}


def test_packages_of_another_version_or_not_held_are_named() -> None:
    packages = {name: DriverPackage("1.20.0-1", held=True) for name in TOOLKIT}
    state = replace(HOST, packages=packages)
    assert toolkit_reasons(state, "1.20.0-1") == []
    assert len(toolkit_reasons(state, "1.20.1-1")) == 4
    loose = {**packages, TOOLKIT[0]: DriverPackage("1.20.0-1", held=False)}
    assert toolkit_reasons(replace(HOST, packages=loose), "1.20.0-1") == [
        f"{TOOLKIT[0]} is not held"
    ]
    assert toolkit_reasons(HOST, "1.20.0-1") == [f"{name} is not installed" for name in TOOLKIT]


def test_the_repository_is_flat_and_replaces_the_lists_of_earlier_instructions() -> None:
    found = toolkit_repository("https://x.example/deb", "A" * 40, "https://x.example/key", "arm64")
    assert (found.uri, found.suite, found.components) == ("https://x.example/deb/arm64/", "/", ())
    assert "/etc/apt/sources.list.d/nvidia-docker.list" in found.paths


def test_a_version_with_a_known_hole_is_refused() -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({"container_toolkit_version": "1.19.0-1"})
    (problem,) = error.value.problems
    assert "CVE-2026-24260" in problem.sentence("host")
    assert read_settings({"container_toolkit_version": "1.19.1-1"}).container_toolkit.version


def test_default_version_waits_for_the_driver_and_hands_out_uvm() -> None:
    """Before 1.20.1, the spec may come after Docker (nvidia-container-toolkit#2019) and lack
    /dev/nvidia-uvm (#1979)."""
    version = read_settings({}).container_toolkit.version
    assert [int(part) for part in version.replace("-", ".").split(".")] >= [1, 20, 1, 1]


def test_nvidias_condition_is_replaced_only_where_it_does_not_know_the_module() -> None:
    own = replace(HOST, packages={"nvidia-open-kernel-dkms": DriverPackage("550.163.01-2", True)})
    assert isinstance(refresh_condition(own), File)
    assert isinstance(refresh_condition(HOST), Absent)
