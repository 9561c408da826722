"""What is to be done to a host's driver, and whether the outcome can be used. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llmhost.nvidia.cuda import too_old, version
from llmhost.nvidia.driver import Choice, Unsatisfiable, Wish, below_floor, choose
from llmhost.nvidia.gpu_allocation import GpuRequest, allocate, allocate_numbers
from llmhost.nvidia.packages import (
    DKMS_KEYS,
    Kernel,
    Packages,
    check_signature,
    driver_packages,
    foreign_packages,
    packages,
)
from llmhost.nvidia.state import NvidiaState

# Parts of the userspace, of which every driver has at least one; all carry the driver's version.
_USERSPACE = ("nvidia-utils", "libnvidia-compute", "nvidia-smi", "nvidia-driver-cuda", "libcuda1")

WINDOWS_DRIVER = "on WSL the driver is that of Windows: install or update it there"


@dataclass(frozen=True)
class DriverPolicy:
    """What a host's driver shall be. `requests` says which GPUs each service asks for; with
    `managed` off the driver is only checked. `power_limit_watts` holds for every GPU.
    `shortfalls` says what does not fit into GPUs of these sizes in bytes, when the services have
    those with these numbers."""

    wish: Wish = field(default_factory=Wish)
    requests: Mapping[str, GpuRequest] = field(default_factory=dict)
    managed: bool = True
    power_limit_watts: int | None = None
    shortfalls: Callable[[Mapping[str, tuple[int, ...]], Sequence[int]], Iterable[str]] = field(
        default=lambda _granted, _bytes: ()
    )


@dataclass(frozen=True)
class DriverPlan:
    """What apt has to do. `pinning`, `install` and `fabric` are packages for three runs in this
    order, `remove` goes with the first two. `switching` tells that packages stay and only their
    branch changes: then their versions must be named, for apt goes back only if told so."""

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
    choice = choose(policy.wish, state.release, state.generations)
    kernel = Kernel(state.next_kernel, tuple(state.packages))
    wanted = packages(choice, state.release, kernel, nvswitch=state.has_nvswitch)
    distribution = state.release.partition("-")[0]
    enrolled = DKMS_KEYS.get(distribution) in state.mok_keys
    check_signature(wanted, distribution, secure_boot=state.secure_boot, enrolled=enrolled)
    installed = frozenset(state.packages)
    ours, driver = bool(installed & {*wanted.names}), userspace_version(state) or ""
    holes = below_floor(driver) if ours and driver else ""
    switching = ours and bool(driver) and version(driver)[0] != choice.branch
    remove = foreign_packages(installed, choice, state.release)
    everything = bool(holes) or switching
    install = tuple(name for name in wanted.names if everything or name not in installed)
    touched = driver_packages(installed) if everything or (remove and install) else {*remove}
    return DriverPlan(
        choice=choice,
        packages=wanted,
        pinning=tuple(name for name in wanted.pinning if name not in installed),
        install=install,
        fabric=() if fabric_fits(wanted, state) else wanted.fabric,
        remove=remove,
        unhold=tuple(sorted(name for name in touched if state.packages[name].held)),
        switching=switching,
        reasons=tuple(_reasons(choice, wanted, state, remove, holes)),
    )


def _reasons(
    choice: Choice, wanted: Packages, state: NvidiaState, remove: tuple[str, ...], holes: str
) -> Iterator[str]:
    missing = [name for name in wanted.all if name not in state.packages]
    if missing or remove:
        source = "NVIDIA's repository" if choice.source == "nvidia" else state.release
        yield f"driver branch {choice.branch} with the {choice.module} module comes from {source}"
        yield from choice.notes
    yield from (f"{name} is not installed" for name in missing)
    yield from (f"{name} belongs to another driver" for name in remove)
    if holes:
        yield holes
    yield from (f"{name} is not held" for name in unheld(state))


def unheld(state: NvidiaState) -> tuple[str, ...]:
    """Parts of a driver, dependencies included, that apt would upgrade under the loaded module."""
    parts = driver_packages(state.packages)
    return tuple(sorted(name for name in parts if not state.packages[name].held))


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


def reboot_reasons(state: NvidiaState, choice: Choice | None) -> list[str]:
    """Why the loaded module is not the one that was installed; `choice` is unset for a driver
    that somebody else manages."""
    found = []
    if state.nouveau:
        found.append("the nouveau module is loaded in place of NVIDIA's")
    ready, loaded = state.next_module, state.loaded
    if loaded is None:
        if ready is not None and not state.nouveau:
            found.append(f"module {ready.version} is installed and not loaded")
        return found
    if ready is not None and ready.version != loaded.version:
        found.append(f"module {loaded.version} is loaded, and {ready.version} is installed")
    elif choice is not None and loaded.kind != choice.module:
        found.append(f"the {loaded.kind} module is loaded, and the {choice.module} one is wanted")
    userspace = userspace_version(state)
    if not found and userspace and version(userspace) != version(loaded.version):
        found.append(f"module {loaded.version} is loaded, and the libraries are {userspace}")
    return found


def module_problems(plan: DriverPlan, state: NvidiaState) -> list[str]:
    """Why the kernel that boots next would come up without the wanted module."""
    module, kernel = state.next_module, state.next_kernel
    if module is None:
        return [
            f"the packages are installed, and kernel {kernel} has no nvidia module: "
            "'dkms status' and the log of apt tell why it was not built"
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
    for gpu in state.gpus:
        limit = gpu.power_limit_watts
        if wanted is not None and limit is not None and abs(limit - wanted) >= 1:
            found.append(f"GPU {gpu.index} may draw {limit:g} W, not {wanted}")
    return found


def impossible(policy: DriverPolicy, state: NvidiaState) -> list[str]:
    """What the services ask for in vain, as far as it can be told before anything is changed."""
    if not policy.requests:
        return []
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
    if not state.has_gpu:
        return _no_gpu(policy, state)
    if state.is_wsl and (parts := sorted(driver_packages(state.packages))):
        return [
            "WSL uses the driver of Windows, and a Linux one hides it: remove it with "
            f"'apt-get purge {' '.join(parts)}'"
        ]
    if state.smi_error or not state.gpus:
        said = state.smi_error or "nvidia-smi is not there"
        reasons = [WINDOWS_DRIVER] if state.is_wsl else reboot_reasons(state, None)
        return [f"the driver can not be used: {said}", *reasons]
    return [*_driver_problems(policy, state), *_gpu_problems(policy, state)]


def _no_gpu(policy: DriverPolicy, state: NvidiaState) -> list[str]:
    askers = " and ".join(f"service '{service}'" for service in policy.requests)
    advice = [WINDOWS_DRIVER] if state.is_wsl else []
    return [f"no NVIDIA GPU is on this host, and {askers} asks for one", *advice]


def _driver_problems(policy: DriverPolicy, state: NvidiaState) -> Iterator[str]:
    driver = state.gpus[0].driver
    # The floors are those of the Linux driver; on WSL the driver's version is Windows's.
    if not state.is_wsl and (holes := below_floor(driver)):
        yield holes
    yield from too_old(version(driver), policy.wish.cuda)


def _gpu_problems(policy: DriverPolicy, state: NvidiaState) -> Iterator[str]:
    there, listed = len(state.generations), len(state.gpus)
    if listed < there:
        yield f"{there} GPUs are on the PCI bus, and the driver lists {listed}: dmesg tells why"
    yield from _allocation_problems(policy, state)


def _allocation_problems(policy: DriverPolicy, state: NvidiaState) -> Iterator[str]:
    for gpu in state.gpus if policy.requests else ():
        if gpu.mig:
            yield (
                f"GPU {gpu.index} is cut into MIG instances, which llmhost does not hand out: "
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
