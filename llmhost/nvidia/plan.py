"""What is to be done to a host's driver, and whether the outcome can be used. Pure."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from llmhost.nvidia.branches import FLOORS, below_floor
from llmhost.nvidia.cuda import too_old
from llmhost.nvidia.data import MATRIX, version
from llmhost.nvidia.driver import Choice, Unsatisfiable, Wish, choose
from llmhost.nvidia.gpu_allocation import GpuRequest, allocate, allocate_numbers
from llmhost.nvidia.kernel import Kernel, own_headers
from llmhost.nvidia.packages import (
    DKMS_KEYS,
    Packages,
    check_signature,
    driver_packages,
    follows_the_kernel,
    foreign_packages,
    packages,
)
from llmhost.nvidia.state import Gpu, NvidiaState

# Parts of the userspace, of which every driver has at least one; all carry the driver's version.
_USERSPACE = ("nvidia-utils", "libnvidia-compute", "nvidia-smi", "nvidia-driver-cuda", "libcuda1")

_DKMS = re.compile(r"nvidia-((open-)?kernel-|kernel-open-)?dkms")

WINDOWS_DRIVER = "on WSL the driver is that of Windows: install or update it there"


@dataclass(frozen=True)
class DriverPolicy:
    """What a host's driver shall be. `requests` says which GPUs each service asks for; with
    `managed` off the driver is only checked. `power_limit_watts` holds for every GPU.
    `accept_vulnerable_until` is the last day on which known holes of the driver are accepted.
    `shortfalls` says what does not fit into GPUs of these sizes in bytes, when the services have
    those with these numbers."""

    wish: Wish = field(default_factory=Wish)
    requests: Mapping[str, GpuRequest] = field(default_factory=dict)
    managed: bool = True
    power_limit_watts: int | None = None
    accept_vulnerable_until: date | None = None
    shortfalls: Callable[[Mapping[str, tuple[int, ...]], Sequence[int]], Iterable[str]] = field(
        default=lambda _granted, _bytes: ()
    )


@dataclass(frozen=True)
class DriverPlan:
    """What apt has to do. `pinning`, `install` and `fabric` are packages for three runs in this
    order, `remove` goes with the first two. `switching`: packages stay and only their branch
    changes, so that their versions must be named, because apt downgrades nothing by itself."""

    choice: Choice
    packages: Packages
    pinning: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    fabric: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    unhold: tuple[str, ...] = ()
    switching: bool = False
    reasons: tuple[str, ...] = ()


def plan_driver(policy: DriverPolicy, state: NvidiaState) -> DriverPlan:
    """The driver for a host with NVIDIA hardware. Raises Unsatisfiable."""
    if sentences := foreign_platform(state, managed=policy.managed):
        raise Unsatisfiable(*sentences)
    if sentences := [*_limits_out_of_range(policy, state)]:
        raise Unsatisfiable(*sentences)
    hgx = state.has_hgx_fabric
    choice = choose(policy.wish, state.release, state.generations, nvidia_only=hgx)
    choice = replace(choice, notes=(*choice.notes, *smi_warnings(state)))
    kernel = Kernel(state.next_kernel, tuple(state.packages))
    wanted = packages(choice, state.release, kernel, nvswitch=state.has_nvswitch, infiniband=hgx)
    distribution = state.release.partition("-")[0]
    key = state.dkms_key or DKMS_KEYS[distribution]
    if state.secure_boot and key not in state.mok_keys:
        check_signature(wanted, distribution, key)
    installed = frozenset(state.packages)
    ours, driver = bool(installed & {*wanted.names}), userspace_version(state) or ""
    holes = mendable_holes(policy, state, driver) if ours else ""
    switching = ours and bool(driver) and version(driver)[0] != choice.branch
    remove = foreign_packages(installed, choice, state.release, kernel)
    lacking = ours and lacks_module(wanted, state)
    everything = bool(holes) or switching or lacking
    install = tuple(name for name in wanted.names if everything or name not in installed)
    if lacking:
        install = (wanted.module, *install)
    touched = driver_packages(installed) if everything or (remove and install) else {*remove}
    return DriverPlan(
        choice=choice,
        packages=wanted,
        pinning=tuple(name for name in wanted.pinning if name not in installed),
        install=tuple(dict.fromkeys(install)),
        fabric=() if fabric_fits(wanted, state) else wanted.fabric,
        remove=remove,
        unhold=tuple(
            sorted({*wrongly_held(state), *(n for n in touched if state.packages[n].held)})
        ),
        switching=switching,
        reasons=tuple(_reasons(choice, wanted, state, remove, holes))
        + _build_reasons(wanted, state),
    )


def unbuilt(wanted: Packages, state: NvidiaState) -> bool:
    """Whether DKMS has the module's source and built none for the kernel that boots next."""
    source = any(_DKMS.match(name) for name in state.packages)
    return source and not wanted.module and state.next_module is None


def _build_reasons(wanted: Packages, state: NvidiaState) -> tuple[str, ...]:
    """Why DKMS must build a module for the kernel that boots next."""
    if not unbuilt(wanted, state):
        return ()
    headers = own_headers(Kernel(state.next_kernel, ()))
    missing = () if headers in state.packages else (f"{headers} is not installed",)
    return (f"kernel {state.next_kernel} boots next and has no nvidia module", *missing)


def lacks_module(wanted: Packages, state: NvidiaState) -> bool:
    """Whether the kernel that boots next has no module though Ubuntu builds one for it: the kernel
    was updated and the module was not. Its package needs the driver's version of that day, so that
    the whole driver moves with it."""
    return bool(wanted.module) and state.next_module is None


def foreign_platform(state: NvidiaState, *, managed: bool) -> list[str]:
    """Hosts whose GPU needs a driver that llmhost cannot install: a vGPU works with one that
    somebody else installed, a Jetson not at all."""
    tegra = [name for name in state.board.split() if name.startswith("nvidia,tegra")]
    thor = any(device.device_id in MATRIX.jetson for device in state.pci)
    if tegra or thor or state.running_kernel.endswith("-tegra"):
        board = tegra[-1] if tegra else "nvidia,tegra264" if thor else "a Tegra kernel"
        return [
            f"this is a Jetson ({board}): its driver is part of Jetson Linux, and CDI does"
            " not list its GPU by UUID; llmhost does not support it"
        ]
    if managed and (shared := [device.address for device in state.pci if device.vgpu]):
        return [
            f"the GPU {' and '.join(shared)} is a vGPU, which only the guest driver of NVIDIA vGPU "
            "software can drive: install it, and set nvidia_driver_managed = False"
        ]
    return []


def fixed_version(state: NvidiaState, driver: str) -> str:
    """The first version without known holes that the host's package sources offer, or nothing."""
    branch = version(driver)[0]
    least = version(FLOORS.get(branch, ""))
    fitting = [each for each in state.offered if version(each)[:1] == (branch,)]
    return min((each for each in fitting if version(each) >= least), key=version, default="")


def _accepted(policy: DriverPolicy) -> bool:
    until = policy.accept_vulnerable_until
    return until is not None and policy.wish.today <= until


def mendable_holes(policy: DriverPolicy, state: NvidiaState, driver: str) -> str:
    """Known holes of a driver of which the host's package sources offer a fixed version."""
    holes = below_floor(driver) if driver and not _accepted(policy) else ""
    fixed = fixed_version(state, driver) if holes else ""
    return f"{holes}; {fixed} is offered" if fixed else ""


def smi_warnings(state: NvidiaState) -> Iterator[str]:
    """What nvidia-smi warns of beside the GPUs that it lists."""
    yield from (f"nvidia-smi warns: {each}" for each in state.smi_warnings)


def unmended_holes(policy: DriverPolicy, state: NvidiaState) -> Iterator[str]:
    """Known holes of the driver that have to be lived with until a fixed version is offered."""
    driver = _running_driver(state)
    holes = below_floor(driver) if driver and not _accepted(policy) else ""
    if holes and not fixed_version(state, driver):
        yield f"{holes}, and no package source of this host offers a fixed version yet"


def _reasons(
    choice: Choice, wanted: Packages, state: NvidiaState, remove: tuple[str, ...], holes: str
) -> Iterator[str]:
    missing = [name for name in wanted.all if name not in state.packages]
    if missing or remove:
        source = "NVIDIA's repository" if choice.source == "nvidia" else state.release
        yield f"driver branch {choice.branch} with the {choice.module} module comes from {source}"
    yield from (f"{name} is not installed" for name in missing)
    if not missing and lacks_module(wanted, state):
        yield f"kernel {state.next_kernel} boots next and has no nvidia module"
    yield from (f"{name} belongs to another driver" for name in remove)
    if holes:
        yield holes
    yield from (f"{name} is not held" for name in unheld(state))
    yield from (f"{name} is held, and could not follow the kernel" for name in wrongly_held(state))


def unheld(state: NvidiaState) -> tuple[str, ...]:
    """Parts of a driver, dependencies included, that apt would upgrade under the loaded module."""
    parts = (name for name in driver_packages(state.packages) if not follows_the_kernel(name))
    return tuple(sorted(name for name in parts if not state.packages[name].held))


def wrongly_held(state: NvidiaState) -> tuple[str, ...]:
    """Prebuilt modules that are held: the next kernel would come without."""
    parts = (name for name in driver_packages(state.packages) if follows_the_kernel(name))
    return tuple(sorted(name for name in parts if state.packages[name].held))


def fabric_fits(wanted: Packages, state: NvidiaState) -> bool:
    """Whether the fabric manager is there in exactly the driver's version, or not needed."""
    driver = userspace_version(state)
    found = [state.packages.get(name) for name in wanted.fabric]
    return all(each and version(each.version) == version(driver or "") for each in found)


def userspace_version(state: NvidiaState) -> str | None:
    """Version of the installed driver's libraries, without the packaging's part."""
    for name, package in state.packages.items():
        if name.startswith(_USERSPACE):
            return package.version.partition(":")[2] or package.version
    return None


def _running_driver(state: NvidiaState) -> str:
    """The version that the GPUs name; if none does, that of the driver's libraries, or nothing."""
    named = (gpu.driver for gpu in state.gpus if version(gpu.driver))
    return next(named, userspace_version(state) or "")


def reboot_reasons(state: NvidiaState, choice: Choice | None) -> list[str]:
    """Why the loaded module is not the one that was installed; `choice` is unset for a driver
    that somebody else manages."""
    found = []
    if state.nouveau:
        found.append("the nouveau module is loaded instead of NVIDIA's")
    ready, loaded = state.next_module, state.loaded
    if loaded is None:
        if ready is not None and not state.nouveau:
            found.append(f"module {ready.version} is installed but not loaded")
        return found
    if ready is not None and ready.version != loaded.version:
        found.append(f"module {loaded.version} is loaded, and {ready.version} is installed")
    elif choice is not None and loaded.kind != choice.module:
        found.append(f"the {loaded.kind} module is loaded, but the {choice.module} one is required")
    userspace = userspace_version(state)
    if not found and userspace and version(userspace) != version(loaded.version):
        found.append(f"module {loaded.version} is loaded, and the libraries are {userspace}")
    return found


def module_problems(plan: DriverPlan, state: NvidiaState) -> list[str]:
    """Why the kernel that boots next would come up without the wanted module."""
    module, kernel = state.next_module, state.next_kernel
    if module is None and plan.packages.module:
        return [
            f"the packages are installed, and kernel {kernel} has no nvidia module: "
            f"{plan.packages.module} should have brought it; boot another kernel, or install "
            "that package again"
        ]
    if module is None:
        headers = own_headers(Kernel(kernel, ()))
        if headers not in state.packages:
            return [
                f"the packages are installed, but kernel {kernel} has no nvidia module: no package "
                f"source of this host offers {headers}; install the newest kernel, reboot, then "
                "deploy again"
            ]
        return [
            f"the packages are installed, and kernel {kernel} has no nvidia module: "
            "'dkms status' and /var/log/apt/term.log show why it was not built"
        ]
    if module.kind != plan.choice.module:
        return [f"kernel {kernel} has the {module.kind} module, not the {plan.choice.module} one"]
    if state.secure_boot and not module.signer:
        return [f"Secure Boot is on, and the module of kernel {kernel} is not signed"]
    return []


def gpu_drift(policy: DriverPolicy, state: NvidiaState) -> list[str]:
    """GPUs that are not set as declared."""
    wanted = policy.power_limit_watts
    found = [
        f"GPU {gpu.index} is not in persistence mode" for gpu in state.gpus if not gpu.persistence
    ]
    found += [
        f"GPU {gpu.index} has a power limit of {gpu.power_limit_watts:g} W, not {wanted}"
        for gpu in _off_limit(policy, state)
        if gpu.pci_address not in state.power_refused
    ]
    return found


def refused_limits(policy: DriverPolicy, state: NvidiaState) -> list[str]:
    """GPUs that were asked for the declared power limit since they were started and do not take
    any (`nvidia-smi -pl` then warns, and succeeds)."""
    return [
        f"GPU {gpu.index} rejects the power limit; it has {gpu.power_limit_watts:g} W"
        for gpu in _off_limit(policy, state)
        if gpu.pci_address in state.power_refused
    ]


def _limits_out_of_range(policy: DriverPolicy, state: NvidiaState) -> Iterator[str]:
    """GPUs that the declared power limit would fail on, and llmhost-gpu.service with them."""
    for gpu in _off_limit(policy, state):
        least, most = gpu.power_range_watts or (0.0, math.inf)
        takes_any = gpu.pci_address not in state.power_refused
        if takes_any and not least <= (policy.power_limit_watts or 0) <= most:
            yield (
                f"nvidia_driver_power_limit_watts = {policy.power_limit_watts} is not a limit that "
                f"GPU {gpu.index} accepts: set one from {least:g} to {most:g}"
            )


def _off_limit(policy: DriverPolicy, state: NvidiaState) -> Iterator[Gpu]:
    wanted = policy.power_limit_watts
    for gpu in state.gpus:
        limit = gpu.power_limit_watts
        if wanted is not None and limit is not None and abs(limit - wanted) >= 1:
            yield gpu


def impossible(policy: DriverPolicy, state: NvidiaState) -> list[str]:
    """Requests of services that cannot be fulfilled, as far as is known before any change."""
    if not policy.requests:
        return []
    if sentences := foreign_platform(state, managed=policy.managed):
        return sentences
    if not state.has_gpu:
        return _no_gpu(policy, state)
    there = len(state.generations)
    if state.gpus and len(state.gpus) >= there:
        return [*_allocation_problems(policy, state)]
    try:  # A driver may bring those to light that are not listed.
        allocate_numbers(policy.requests, there)
        if policy.managed and not state.is_wsl:
            plan_driver(policy, state)
    except Unsatisfiable as error:
        return [*error.sentences]
    return []


def unusable(policy: DriverPolicy, state: NvidiaState) -> list[str]:
    """Why services that ask for GPUs must not be (re)started on this host."""
    if sentences := foreign_platform(state, managed=policy.managed):
        return sentences
    if not state.has_gpu:
        return _no_gpu(policy, state)
    if state.is_wsl and (parts := sorted(driver_packages(state.packages))):
        return [
            "WSL uses the driver of Windows, and a Linux one hides it: remove it with "
            f"'apt-get purge {' '.join(parts)}'"
        ]
    if state.smi_error or not state.gpus:
        error = state.smi_error or "nvidia-smi is not installed"
        reasons = [WINDOWS_DRIVER] if state.is_wsl else reboot_reasons(state, None)
        return [f"the driver does not work: {error}", *reasons]
    return [*_driver_problems(policy, state), *_gpu_problems(policy, state)]


def _no_gpu(policy: DriverPolicy, state: NvidiaState) -> list[str]:
    askers = " and ".join(f"service '{service}'" for service in policy.requests)
    advice = [WINDOWS_DRIVER] if state.is_wsl else []
    return [f"no NVIDIA GPU is on this host, and {askers} asks for one", *advice]


def _driver_problems(policy: DriverPolicy, state: NvidiaState) -> Iterator[str]:
    driver = _running_driver(state)
    # The floors are those of the Linux driver; on WSL the driver's version is Windows's.
    if not state.is_wsl and (holes := mendable_holes(policy, state, driver)):
        yield holes
    if driver:
        yield from too_old(version(driver), policy.wish.cuda)


def _gpu_problems(policy: DriverPolicy, state: NvidiaState) -> Iterator[str]:
    there, listed = len(state.generations), len(state.gpus)
    if listed < there:
        yield f"{there} GPUs are on the PCI bus, but the driver lists {listed}: see dmesg"
    yield from _allocation_problems(policy, state)


def _allocation_problems(policy: DriverPolicy, state: NvidiaState) -> Iterator[str]:
    if broken := [gpu for gpu in state.gpus if gpu.fault]:
        for gpu in broken:
            yield (
                f"GPU {gpu.index} ({gpu.pci_address}) does not work: nvidia-smi says "
                f"'{gpu.fault}', and dmesg why; reboot the host, or remove the GPU"
            )
        return
    for gpu in state.gpus if policy.requests else ():
        if gpu.mig:
            yield (
                f"GPU {gpu.index} is partitioned into MIG instances, which llmhost does not"
                " support: "
                f"run 'nvidia-smi -i {gpu.index} -mig 0' and reboot"
            )
    try:
        granted = allocate(policy.requests, state.gpus)
    except Unsatisfiable as error:
        yield from error.sentences
        return
    places = {gpu.uuid: place for place, gpu in enumerate(state.gpus)}
    numbers = {service: tuple(places[uuid] for uuid in found) for service, found in granted.items()}
    yield from policy.shortfalls(numbers, [gpu.memory_bytes for gpu in state.gpus])
