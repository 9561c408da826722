"""What is done to a host's driver, and which hosts can not be used in the end."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from llmhost.nvidia.driver import Unsatisfiable, Wish
from llmhost.nvidia.gpu_allocation import GpuRequest
from llmhost.nvidia.plan import (
    DriverPolicy,
    fabric_fits,
    gpu_drift,
    impossible,
    module_problems,
    plan_driver,
    reboot_reasons,
    unheld,
    unusable,
)
from llmhost.nvidia.state import DriverPackage, Gpu, KernelModule, NvidiaState, PciDevice

KERNEL = "6.8.0-85-generic"
BARE = NvidiaState(
    release="ubuntu-24.04",
    machine="x86_64",
    init="systemd",
    running_kernel=KERNEL,
    next_kernel=KERNEL,
    pci=(PciDevice("0000:01:00.0", 0x030000, 0x2C05),),
    packages={"linux-image-generic": DriverPackage("6.8.0-85.85", held=False)},
)
VERSION = "580.159.03-0ubuntu0.24.04.1"
DRIVER = (
    "linux-modules-nvidia-580-server-open-generic",
    "nvidia-headless-no-dkms-580-server-open",
    "nvidia-utils-580-server",
    "nvidia-compute-utils-580-server",
    "libnvidia-compute-580-server",
)
GPU = Gpu(0, "GPU-0", "00000000:01:00.0", "580.159.03", True, 300.0, False, "RTX 5070 Ti")
DONE = replace(
    BARE,
    loaded=KernelModule("580.159.03", "open"),
    next_module=KernelModule("580.159.03", "open", "Canonical"),
    packages={**BARE.packages, **{name: DriverPackage(VERSION, held=True) for name in DRIVER}},
    gpus=(GPU,),
)


def with_packages(state: NvidiaState, **packages: DriverPackage) -> NvidiaState:
    named = {name.replace("_", "-"): package for name, package in packages.items()}
    return replace(state, packages={**state.packages, **named})


def test_a_bare_host_gets_every_package_and_the_choice_is_told() -> None:
    plan = plan_driver(DriverPolicy(), BARE)
    assert plan.install == DRIVER[:4]
    assert "driver branch 580 with the open module comes from ubuntu-24.04" in plan.reasons
    assert len(plan.reasons) == 5


def test_a_host_that_is_as_declared_has_nothing_to_do() -> None:
    plan = plan_driver(DriverPolicy(), DONE)
    assert (plan.reasons, plan.install, plan.remove, plan.unhold) == ((), (), (), ())
    assert unheld(DONE) == () and reboot_reasons(DONE, plan.choice) == []
    assert module_problems(plan, DONE) == [] and unusable(DriverPolicy(), DONE) == []


def test_a_dependency_that_is_not_held_is_noticed() -> None:
    loose = {**DONE.packages, DRIVER[4]: DriverPackage(VERSION, held=False)}
    state = replace(DONE, packages=loose)
    assert plan_driver(DriverPolicy(), state).reasons == (f"{DRIVER[4]} is not held",)
    assert unheld(state) == (DRIVER[4],)


def test_known_holes_are_mended_within_the_branch_and_everything_is_let_go_first() -> None:
    old = {name: DriverPackage("580.95.05-0ubuntu0.24.04.1", held=True) for name in DRIVER}
    plan = plan_driver(DriverPolicy(), replace(DONE, packages={**BARE.packages, **old}))
    assert plan.install == DRIVER[:4] and plan.remove == ()
    assert set(plan.unhold) == set(DRIVER)
    assert "known security holes" in plan.reasons[-1]


def test_another_branch_replaces_all_parts_of_the_old_one() -> None:
    plan = plan_driver(DriverPolicy(Wish(branch=595)), DONE)
    assert set(plan.remove) == set(DRIVER) == set(plan.unhold)
    assert plan.install[0] == "linux-modules-nvidia-595-server-open-generic"


def test_packages_that_keep_their_names_change_their_branch_by_version() -> None:
    names = (
        *("nvidia-driver-pinning-580", "linux-headers-amd64", "nvidia-kernel-open-dkms"),
        *("nvidia-driver-cuda", "nvidia-persistenced", "libnvidia-ml1"),
    )
    packages = {name: DriverPackage("580.159.03-1", held=True) for name in names}
    state = replace(DONE, release="debian-13", packages=packages)
    assert not plan_driver(DriverPolicy(), state).switching
    plan = plan_driver(DriverPolicy(Wish(branch=595)), state)
    assert plan.switching and plan.remove == ("nvidia-driver-pinning-580",)
    assert plan.pinning == ("nvidia-driver-pinning-595",)
    assert set(plan.install) == set(names[1:5])
    assert set(plan.unhold) == set(names) - {"linux-headers-amd64"}


def test_dkms_under_secure_boot_is_refused_until_its_key_is_enrolled() -> None:
    state = replace(BARE, release="debian-13", secure_boot=True)
    with pytest.raises(Unsatisfiable, match="mokutil --import"):
        plan_driver(DriverPolicy(), state)
    plan_driver(DriverPolicy(), replace(state, mok_keys=("/var/lib/dkms/mok.pub",)))
    # Ubuntu's own key of DKMS does not help a Debian host.
    with pytest.raises(Unsatisfiable):
        plan_driver(DriverPolicy(), replace(state, mok_keys=("/var/lib/shim-signed/mok/MOK.der",)))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (replace(DONE, loaded=None), "module 580.159.03 is installed and not loaded"),
        (replace(DONE, loaded=None, nouveau=True), "nouveau module is loaded"),
        (
            replace(DONE, next_module=KernelModule("580.173.02", "open")),
            "module 580.159.03 is loaded, and 580.173.02 is installed",
        ),
        (
            replace(DONE, loaded=KernelModule("580.159.03", "closed")),
            "the closed module is loaded, and the open one is wanted",
        ),
        (
            with_packages(DONE, nvidia_utils_580_server=DriverPackage("580.173.02-1", held=True)),
            "the libraries are 580.173.02-1",
        ),
    ],
)
def test_a_reboot_is_needed_and_why(state: NvidiaState, reason: str) -> None:
    (found,) = reboot_reasons(state, plan_driver(DriverPolicy(), DONE).choice)
    assert reason in found


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (replace(DONE, next_module=None), "has no nvidia module"),
        (
            replace(DONE, next_module=KernelModule("580.159.03", "closed")),
            "has the closed module, not the open one",
        ),
        (
            replace(DONE, secure_boot=True, next_module=KernelModule("580.159.03", "open")),
            "is not signed",
        ),
    ],
)
def test_a_kernel_that_would_come_up_without_the_module_is_refused(
    state: NvidiaState, problem: str
) -> None:
    (found,) = module_problems(plan_driver(DriverPolicy(), DONE), state)
    assert problem in found and KERNEL in found


@pytest.mark.parametrize(
    ("fabric", "fits"),
    [("580.159.03-0ubuntu0.24.04.1", True), ("580.159.03-1", True), ("580.173.02-1", False)],
)
def test_the_fabric_manager_must_have_the_drivers_version(fabric: str, fits: bool) -> None:
    switch = PciDevice("0000:80:00.0", 0x068000, 0x22A3)
    state = replace(DONE, pci=(*DONE.pci, switch))
    names = ("nvidia-fabricmanager-580", "libnvidia-nscq-580")
    both = {name: DriverPackage(fabric, held=True) for name in names}
    state = replace(state, packages={**state.packages, **both})
    plan = plan_driver(DriverPolicy(), state)
    assert fabric_fits(plan.packages, state) is fits
    assert plan.fabric == (() if fits else names)


ASKS = {"ollama": GpuRequest(("0",))}
WSL = replace(
    BARE, running_kernel="6.6.87.2-microsoft-standard-WSL2", wsl_gpu=True, pci=(), packages={}
)


@pytest.mark.parametrize(
    ("policy", "state", "sentence"),
    [
        (DriverPolicy(requests=ASKS), replace(BARE, pci=()), "no NVIDIA GPU is on this host"),
        (DriverPolicy(), BARE, "nvidia-smi is not there"),
        (
            DriverPolicy(),
            replace(DONE, gpus=(), smi_error="Failed to initialize NVML: Driver/library mismatch"),
            "Failed to initialize NVML",
        ),
        (
            DriverPolicy(),
            replace(DONE, gpus=(replace(GPU, driver="580.95.05"),)),
            "known security holes",
        ),
        (
            DriverPolicy(Wish(cuda={"vllm": "13.0"})),
            replace(DONE, gpus=(replace(GPU, driver="575.1"),)),
            "needs CUDA 13.0",
        ),
        (DriverPolicy(), replace(DONE, pci=DONE.pci * 2), "2 GPUs are on the PCI bus"),
        (
            DriverPolicy(requests=ASKS),
            replace(DONE, gpus=(replace(GPU, mig=True),)),
            "MIG instances",
        ),
        (
            DriverPolicy(requests={"a": GpuRequest(("GPU-9",))}),
            DONE,
            "GPU-9, which is not on this host",
        ),
        (DriverPolicy(requests={"a": GpuRequest(2)}), DONE, "asks for 2 GPU(s), and 1 of"),
        (
            DriverPolicy(),
            with_packages(
                replace(WSL, gpus=(GPU,)), nvidia_utils_580=DriverPackage(VERSION, held=False)
            ),
            "WSL uses the driver of Windows",
        ),
        (DriverPolicy(), replace(WSL, smi_error="no driver"), "that of Windows"),
        (DriverPolicy(requests=ASKS), WSL, "that of Windows"),
    ],
)
def test_a_host_whose_gpus_can_not_be_used_is_refused_with_the_reason(
    policy: DriverPolicy, state: NvidiaState, sentence: str
) -> None:
    assert sentence in " ".join(unusable(policy, state))


@pytest.mark.parametrize(
    ("requests", "state", "sentence"),
    [
        (ASKS, replace(BARE, pci=()), "no NVIDIA GPU is on this host, and service 'ollama'"),
        (ASKS, WSL, "that of Windows"),
        ({"a": GpuRequest(2)}, BARE, "asks for 2 GPU(s), and 1 of"),
        ({"a": GpuRequest(("1",))}, BARE, "asks for GPU 1, which is not on this host"),
        ({"a": GpuRequest(("GPU-9",))}, DONE, "GPU-9, which is not on this host"),
        (ASKS, replace(DONE, gpus=(replace(GPU, mig=True),)), "MIG instances"),
        (ASKS, replace(BARE, release="debian-13", secure_boot=True), "mokutil --import"),
    ],
)
def test_what_is_asked_for_in_vain_is_told_before_anything_is_changed(
    requests: dict[str, GpuRequest], state: NvidiaState, sentence: str
) -> None:
    assert sentence in " ".join(impossible(DriverPolicy(requests=requests), state))


@pytest.mark.parametrize("state", [BARE, DONE, replace(DONE, gpus=(), smi_error="no driver")])
def test_what_a_driver_may_still_mend_is_no_reason_not_to_begin(state: NvidiaState) -> None:
    assert impossible(DriverPolicy(requests=ASKS), state) == []
    assert impossible(DriverPolicy(requests={"a": GpuRequest(("GPU-0",))}), state) == []
    assert impossible(DriverPolicy(), replace(state, pci=())) == []


def test_memory_is_compared_with_what_the_gpus_really_have() -> None:
    told: list[object] = []

    def shortfalls(granted: Mapping[str, tuple[int, ...]], sizes: Sequence[int]) -> list[str]:
        told.extend([dict(granted), [*sizes]])
        return ["too much"]

    second = replace(GPU, index=1, uuid="GPU-1", memory_bytes=8 << 30)
    state = replace(DONE, pci=DONE.pci * 2, gpus=(replace(GPU, memory_bytes=16 << 30), second))
    policy = DriverPolicy(requests={"a": GpuRequest(("GPU-1",))}, shortfalls=shortfalls)
    assert unusable(policy, state) == impossible(policy, state) == ["too much"]
    assert told[:2] == [{"a": (1,)}, [16 << 30, 8 << 30]]


def test_wsl_is_not_held_to_the_floors_of_the_linux_driver() -> None:
    state = replace(WSL, gpus=(replace(GPU, driver="580.10"),))
    assert unusable(DriverPolicy(), state) == []


def test_gpu_drift_is_persistence_and_power() -> None:
    loose = replace(DONE, gpus=(replace(GPU, persistence=False, power_limit_watts=450.0),))
    assert gpu_drift(DriverPolicy(power_limit_watts=300), loose) == [
        "GPU 0 is not in persistence mode",
        "GPU 0 may draw 450 W, not 300",
    ]
    assert gpu_drift(DriverPolicy(power_limit_watts=300), DONE) == []
    # A GPU without a limit of its own, such as GB10, can not be wrong.
    none = replace(DONE, gpus=(replace(GPU, power_limit_watts=None),))
    assert gpu_drift(DriverPolicy(power_limit_watts=300), none) == []
