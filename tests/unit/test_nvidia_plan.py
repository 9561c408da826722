"""What is done to a host's driver, and which hosts can not be used in the end."""

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

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
    refused_limits,
    unbuilt,
    unheld,
    unmended_holes,
    unusable,
)
from llmhost.nvidia.state import DriverPackage, Gpu, KernelModule, NvidiaState, PciDevice
from llmhost.template import render

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
VERSION = "580.178.04-0ubuntu0.24.04.1"
DRIVER = (
    "linux-modules-nvidia-580-server-open-generic",
    "nvidia-headless-no-dkms-580-server-open",
    "nvidia-utils-580-server",
    "nvidia-compute-utils-580-server",
    "libnvidia-compute-580-server",
)
GPU = Gpu(0, "GPU-0", "00000000:01:00.0", "580.178.04", True, 300.0, False, "RTX 5070 Ti")


def held(name: str) -> bool:
    """As a deploy leaves it: prebuilt modules are free to follow the kernel."""
    return not name.startswith("linux-")


DONE = replace(
    BARE,
    loaded=KernelModule("580.178.04", "open"),
    next_module=KernelModule("580.178.04", "open", "Canonical"),
    packages={
        **BARE.packages,
        **{name: DriverPackage(VERSION, held=held(name)) for name in DRIVER},
    },
    gpus=(GPU,),
)


DEBIAN_BOOT: dict[str, Any] = {"secure_boot": True, "next_kernel": "6.12.48+deb13-amd64"}
ASKS = {"ollama": GpuRequest(("0",))}


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


OLD = "580.95.05-0ubuntu0.24.04.1"
VULNERABLE = replace(
    DONE,
    packages={**BARE.packages, **{name: DriverPackage(OLD, held=held(name)) for name in DRIVER}},
    gpus=(replace(GPU, driver="580.95.05"),),
)
OFFERED = ("580.173.02-0ubuntu0.24.04.1", VERSION, "595.91.07-0ubuntu0.24.04.1")


def test_known_holes_without_a_fix_in_the_hosts_sources_are_reported_and_not_refused() -> None:
    for offered in ((), ("580.173.02-0ubuntu0.24.04.1", "595.91.07-0ubuntu0.24.04.1")):
        state = replace(VULNERABLE, offered=offered)
        plan = plan_driver(DriverPolicy(), state)
        assert (plan.install, plan.unhold, plan.reasons) == ((), (), ())
        assert unusable(DriverPolicy(managed=False), state) == []
        (sentence,) = unmended_holes(DriverPolicy(), state)
        assert "580.178.04 is the first version without them" in sentence
        assert "no package source of this host offers a fixed version yet" in sentence


def test_known_holes_can_be_accepted_until_a_day() -> None:
    day = date(2026, 12, 31)
    for today, accepted in ((day, True), (day + timedelta(days=1), False)):
        policy = DriverPolicy(Wish(today=today), accept_vulnerable_until=day)
        state = replace(VULNERABLE, offered=OFFERED)
        assert (plan_driver(policy, state).install == ()) is accepted
        assert (unusable(policy, state) == []) is accepted
        assert ([*unmended_holes(policy, VULNERABLE)] == []) is accepted


def test_a_kernel_without_a_module_gets_exactly_that_and_the_driver_may_move_with_it() -> None:
    newer = "6.8.0-86-generic"
    state = replace(DONE, next_kernel=newer, next_module=None)
    plan = plan_driver(DriverPolicy(), state)
    assert plan.install == (f"linux-modules-nvidia-580-server-open-{newer}", *DRIVER[:4])
    assert set(plan.unhold) == set(DRIVER[1:])
    assert plan.reasons == (f"kernel {newer} boots next and has no nvidia module",)
    (problem,) = module_problems(plan, state)
    assert plan.install[0] in problem and "dkms" not in problem


def test_a_held_module_is_let_go_so_that_it_follows_the_kernel() -> None:
    state = with_packages(DONE, **{DRIVER[0].replace("-", "_"): DriverPackage(VERSION, held=True)})
    plan = plan_driver(DriverPolicy(), state)
    assert plan.unhold == (DRIVER[0],) and plan.install == ()
    assert plan.reasons == (f"{DRIVER[0]} is held, and could not follow the kernel",)


def test_a_module_that_dkms_builds_is_not_asked_of_apt() -> None:
    state = replace(DONE, release="debian-12", next_kernel="6.1.0-40-amd64", next_module=None)
    plan = plan_driver(DriverPolicy(), state)
    assert not any(name.startswith("linux-modules") for name in plan.install)
    assert "linux-modules" not in module_problems(plan, state)[0]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (replace(BARE, pci=(), board="nvidia,p3737 nvidia,tegra234"), "Jetson (nvidia,tegra234)"),
        (replace(BARE, pci=(PciDevice("0", 0x030000, 0x2B00),)), "Jetson (nvidia,tegra264)"),
        (replace(BARE, pci=(), running_kernel="5.15.148-tegra"), "this is a Jetson"),
        (replace(BARE, pci=(replace(BARE.pci[0], vgpu=True),)), "is a vGPU"),
    ],
)
def test_a_host_whose_driver_comes_from_elsewhere_is_recognised_and_refused(
    state: NvidiaState, sentence: str
) -> None:
    policy = DriverPolicy(requests=ASKS)
    assert sentence in impossible(policy, state)[0]
    assert sentence in unusable(policy, state)[0]
    with pytest.raises(Unsatisfiable, match=re.escape(sentence)):
        plan_driver(policy, state)


def test_a_vgpu_works_with_the_driver_that_somebody_else_installed() -> None:
    state = replace(DONE, pci=(replace(DONE.pci[0], vgpu=True),))
    assert unusable(DriverPolicy(requests=ASKS, managed=False), state) == []


def test_a_whole_hgx_board_of_b200s_comes_from_nvidia_with_its_fabric() -> None:
    gpus = tuple(PciDevice(f"0000:{n:02x}:00.0", 0x030200, 0x2901) for n in range(8))
    plan = plan_driver(DriverPolicy(), replace(BARE, pci=gpus))
    assert plan.choice.source == "nvidia" and "nvlsm" in plan.install
    assert plan.packages.kernel_modules == ("ib_umad",)
    guest = plan_driver(DriverPolicy(), replace(BARE, pci=gpus[:4]))
    assert guest.choice.source == "distribution" and guest.packages.fabric == ()


def test_a_gpu_that_answers_with_an_error_is_refused_and_named() -> None:
    lost = replace(GPU, index=1, uuid="GPU-1", pci_address="00000000:02:00.0", fault="GPU is lost")
    state = replace(DONE, pci=DONE.pci * 2, gpus=(GPU, lost))
    for found in (unusable(DriverPolicy(), state), impossible(DriverPolicy(requests=ASKS), state)):
        assert "GPU 1 (00000000:02:00.0) does not work" in found[0] and "GPU is lost" in found[0]


@pytest.mark.parametrize("driver", ["[N/A]", "[GPU is lost]"])
def test_a_gpu_that_names_no_driver_is_judged_by_the_libraries(driver: str) -> None:
    state = replace(DONE, gpus=(replace(GPU, driver=driver),), offered=OFFERED)
    policy = DriverPolicy(Wish(cuda={"vllm": "13.0"}))
    assert unusable(policy, state) == [] == [*unmended_holes(policy, state)]
    nothing = replace(state, packages={})
    assert unusable(policy, nothing) == [] == [*unmended_holes(policy, nothing)]
    old = replace(state, packages=VULNERABLE.packages)
    assert "known vulnerabilities" in " ".join(unusable(policy, old))


def test_the_desktop_driver_of_the_same_branch_is_replaced() -> None:
    desktop = ("nvidia-driver-580-open", "nvidia-utils-580")
    packages = {name: DriverPackage(VERSION, held=name == desktop[1]) for name in desktop}
    plan = plan_driver(DriverPolicy(), replace(BARE, packages={**BARE.packages, **packages}))
    assert plan.remove == desktop and plan.install == DRIVER[:4]
    assert plan.unhold == desktop[1:]


def test_tools_of_nvidia_are_neither_held_nor_in_the_way_on_wsl() -> None:
    names = ("nvidia-docker2", "nvidia-cuda-toolkit", "nvidia-settings", "libnvidia-ml-dev")
    tools = {name: DriverPackage("1", held=False) for name in names}
    assert unheld(replace(DONE, packages={**DONE.packages, **tools})) == ()
    assert unusable(DriverPolicy(), replace(WSL, packages=tools, gpus=(GPU,))) == []


def test_known_holes_are_mended_within_the_branch_and_everything_is_let_go_first() -> None:
    plan = plan_driver(DriverPolicy(), replace(VULNERABLE, offered=OFFERED))
    assert plan.install == DRIVER[:4] and plan.remove == ()
    assert set(plan.unhold) == set(DRIVER[1:])
    assert "known vulnerabilities" in plan.reasons[-1]


def test_another_branch_replaces_all_parts_of_the_old_one() -> None:
    plan = plan_driver(DriverPolicy(Wish(branch=595)), DONE)
    assert set(plan.remove) == set(DRIVER)
    assert set(plan.unhold) == set(DRIVER[1:])
    assert plan.install[0] == "linux-modules-nvidia-595-server-open-generic"


def test_packages_that_keep_their_names_change_their_branch_by_version() -> None:
    names = (
        *("nvidia-driver-pinning-580", "linux-headers-amd64", "nvidia-kernel-open-dkms"),
        *("nvidia-driver-cuda", "nvidia-persistenced", "libnvidia-ml1"),
    )
    packages = {name: DriverPackage("580.178.04-1", held=True) for name in names}
    state = replace(DONE, release="debian-12", packages=packages, next_kernel="6.1.0-40-amd64")
    assert not plan_driver(DriverPolicy(), state).switching
    plan = plan_driver(DriverPolicy(Wish(branch=595)), state)
    assert plan.switching and plan.remove == ("nvidia-driver-pinning-580",)
    assert plan.pinning == ("nvidia-driver-pinning-595",)
    assert set(plan.install) == set(names[1:5])
    assert set(plan.unhold) == set(names) - {"linux-headers-amd64"}


def test_dkms_under_secure_boot_is_refused_until_its_key_is_enrolled() -> None:
    kernel = "6.12.48+deb13-amd64"
    state = replace(BARE, release="debian-13", secure_boot=True, next_kernel=kernel)
    with pytest.raises(Unsatisfiable, match="mokutil --import"):
        plan_driver(DriverPolicy(), state)
    plan_driver(DriverPolicy(), replace(state, mok_keys=("/var/lib/dkms/mok.pub",)))
    # Ubuntu's own key of DKMS does not help a Debian host.
    with pytest.raises(Unsatisfiable):
        plan_driver(DriverPolicy(), replace(state, mok_keys=("/var/lib/shim-signed/mok/MOK.der",)))


def test_key_that_dkms_is_configured_to_sign_with_counts() -> None:
    own = "/root/company.der"
    state = replace(BARE, release="debian-13", secure_boot=True, dkms_key=own)
    state = replace(state, next_kernel="6.12.48+deb13-amd64")
    with pytest.raises(Unsatisfiable, match=f"mokutil --import {own}`") as refusal:
        plan_driver(DriverPolicy(), replace(state, mok_keys=("/var/lib/dkms/mok.pub",)))
    assert "openssl" not in str(refusal.value)
    plan_driver(DriverPolicy(), replace(state, mok_keys=(own,)))


ON_DEBIAN = (
    *("linux-headers-amd64", "nvidia-kernel-open-dkms", "nvidia-driver-cuda"),
    *("nvidia-persistenced", "nvidia-driver-pinning-595"),
)
DKMS = replace(
    DONE,
    release="debian-13",
    running_kernel="6.12.48+deb13-amd64",
    next_kernel="6.12.57+deb13-amd64",
    next_module=None,
    loaded=KernelModule("595.91.07", "open"),
    packages={name: DriverPackage("595.91.07-1", held=True) for name in ON_DEBIAN},
)


def test_a_kernel_that_dkms_built_no_module_for_is_drift() -> None:
    plan = plan_driver(DriverPolicy(), DKMS)
    headers = "linux-headers-6.12.57+deb13-amd64"
    no_module = "kernel 6.12.57+deb13-amd64 boots next and has no nvidia module"
    assert plan.reasons == (no_module, f"{headers} is not installed")
    assert plan.install == plan.unhold == () and unbuilt(plan.packages, DKMS)
    with_headers = replace(DKMS, packages={**DKMS.packages, headers: DriverPackage("1", False)})
    assert plan_driver(DriverPolicy(), with_headers).reasons == (no_module,)
    proxmox = replace(DKMS, next_kernel="6.14.11-4-pve")
    reasons = plan_driver(DriverPolicy(), proxmox).reasons
    assert "proxmox-headers-6.14.11-4-pve is not installed" in reasons
    built = replace(with_headers, next_module=KernelModule("595.91.07", "open"))
    assert not unbuilt(plan.packages, built) and not unbuilt(plan.packages, BARE)


def test_headers_that_no_source_offers_are_named() -> None:
    """Debian's archive has those of the newest kernel only."""
    plan, headers = plan_driver(DriverPolicy(), DKMS), "linux-headers-6.12.57+deb13-amd64"
    (problem,) = module_problems(plan, DKMS)
    assert f"no package source of this host offers {headers}" in problem
    failed = replace(DKMS, packages={**DKMS.packages, headers: DriverPackage("1", False)})
    assert "dkms status" in module_problems(plan, failed)[0]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (replace(DONE, loaded=None), "module 580.178.04 is installed but not loaded"),
        (replace(DONE, loaded=None, nouveau=True), "nouveau module is loaded"),
        (
            replace(DONE, next_module=KernelModule("580.182.01", "open")),
            "module 580.178.04 is loaded, and 580.182.01 is installed",
        ),
        (
            replace(DONE, loaded=KernelModule("580.178.04", "closed")),
            "the closed module is loaded, but the open one is required",
        ),
        (
            with_packages(DONE, nvidia_utils_580_server=DriverPackage("580.182.01-1", held=True)),
            "the libraries are 580.182.01-1",
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
            replace(DONE, next_module=KernelModule("580.178.04", "closed")),
            "has the closed module, not the open one",
        ),
        (
            replace(DONE, secure_boot=True, next_module=KernelModule("580.178.04", "open")),
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
    [("580.178.04-0ubuntu0.24.04.1", True), ("580.178.04-1", True), ("580.182.01-1", False)],
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


WSL = replace(
    BARE, running_kernel="6.6.87.2-microsoft-standard-WSL2", wsl_gpu=True, pci=(), packages={}
)


@pytest.mark.parametrize(
    ("policy", "state", "sentence"),
    [
        (DriverPolicy(requests=ASKS), replace(BARE, pci=()), "no NVIDIA GPU is on this host"),
        (DriverPolicy(), BARE, "nvidia-smi is not installed"),
        (
            DriverPolicy(),
            replace(DONE, gpus=(), smi_error="Failed to initialize NVML: Driver/library mismatch"),
            "Failed to initialize NVML",
        ),
        (
            DriverPolicy(),
            replace(DONE, gpus=(replace(GPU, driver="580.95.05"),), offered=(VERSION,)),
            "known vulnerabilities",
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
        (DriverPolicy(requests={"a": GpuRequest(2)}), DONE, "asks for 2 GPUs, and 1 of"),
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
        ({"a": GpuRequest(2)}, BARE, "asks for 2 GPUs, and 1 of"),
        ({"a": GpuRequest(("1",))}, BARE, "asks for GPU 1, which is not on this host"),
        ({"a": GpuRequest(("GPU-9",))}, DONE, "GPU-9, which is not on this host"),
        (ASKS, replace(DONE, gpus=(replace(GPU, mig=True),)), "MIG instances"),
        (ASKS, replace(BARE, release="debian-13", **DEBIAN_BOOT), "mokutil --import"),
        (ASKS, replace(BARE, release="debian-13", next_kernel="6.9-own"), "not one of Debian's"),
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
        "GPU 0 has a power limit of 450 W, not 300",
    ]
    assert gpu_drift(DriverPolicy(power_limit_watts=300), DONE) == []
    # It was asked, and takes none: it is not asked again, and reported.
    fixed = replace(DONE, power_refused=(GPU.pci_address,))
    assert gpu_drift(DriverPolicy(power_limit_watts=250), fixed) == []
    assert refused_limits(DriverPolicy(power_limit_watts=250), fixed) == [
        "GPU 0 rejects the power limit; it has 300 W"
    ]
    assert refused_limits(DriverPolicy(power_limit_watts=250), DONE) == []
    # A GPU without a limit of its own, such as GB10, can not be wrong.
    none = replace(DONE, gpus=(replace(GPU, power_limit_watts=None),))
    assert gpu_drift(DriverPolicy(power_limit_watts=300), none) == []


def test_a_power_limit_that_a_gpu_does_not_accept_is_told_before_anything_is_changed() -> None:
    narrow = replace(GPU, power_range_watts=(100.0, 330.5))
    state = replace(DONE, gpus=(narrow,))
    for watts in (50, 331):
        policy = DriverPolicy(power_limit_watts=watts)
        sentence = (
            f"nvidia_driver_power_limit_watts = {watts} is not a limit that GPU 0 accepts: "
            "set one from 100 to 330.5"
        )
        with pytest.raises(Unsatisfiable, match=re.escape(sentence)):
            plan_driver(policy, state)
        plan_driver(policy, DONE)
        plan_driver(policy, replace(state, power_refused=(GPU.pci_address,)))
    for watts in (100, 330):
        plan_driver(DriverPolicy(power_limit_watts=watts), state)


def test_what_nvidia_smi_warns_of_is_a_note() -> None:
    state = replace(DONE, smi_warnings=("infoROM is corrupted at gpu 0000:01:00.0",))
    notes = plan_driver(DriverPolicy(), state).choice.notes
    assert notes == ("nvidia-smi warns: infoROM is corrupted at gpu 0000:01:00.0",)
    assert unusable(DriverPolicy(requests=ASKS), state) == []


def test_the_reason_why_a_power_limit_failed_outlives_the_unit(tmp_path: Path) -> None:
    unit = render("nvidia_driver/llmhost-gpu.service.j2", power_limit_watts=900)
    commands = re.findall(r"^ExecStart=(/bin/sh.*)", unit.replace("\\\n", ""), re.MULTILINE)
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho Provided power limit $2 is not valid\nexit 2\n")
    smi.chmod(0o755)
    command = commands[0].replace("/usr/bin/nvidia-smi", str(smi))
    command = command.replace("/run/llmhost-gpu", str(tmp_path))
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "Provided power limit 900 is not valid\n")
