"""The packages of the NVIDIA driver, and the reading of what they are chosen from."""

from collections.abc import Callable, Generator, Sequence

from pyinfra.api import StringCommand
from pyinfra.api.command import PyinfraCommand

from llmhost.facts.files import PathStates
from llmhost.facts.nvidia import Nvidia, OfferedVersions
from llmhost.nvidia.kernel import Kernel, own_headers
from llmhost.nvidia.packages import DKMS_KEYS, PINNING, REPORTED, driver_packages
from llmhost.nvidia.plan import DriverPlan, fabric_fits, unbuilt, unheld, userspace_version
from llmhost.nvidia.state import NvidiaState
from llmhost.operations import apt
from llmhost.operations.changes import refuse
from llmhost.operations.composition import inner, with_reasons
from llmhost.operations.declaration import Commands, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.operations.files import apply_command
from llmhost.system.apt import AptPlan, script
from llmhost.system.apt_repository import Repository
from llmhost.system.files import Entry, differences

UNREADABLE = "this host's GPUs could not be read; see the lines above for the reason"

MODPROBE_FILE = "/etc/modprobe.d/llmhost-nvidia.conf"
"""Where nouveau is kept from loading; the initramfs must have taken it in."""


def read_state(*, wanted: bool) -> NvidiaState | None:
    """The host's NVIDIA hardware and software; with `wanted` all of it even without hardware.

    None if it could not be read.
    """
    return get_fact(Nvidia, **nvidia_question(wanted=wanted).arguments)


def nvidia_question(*, wanted: bool) -> Question:
    """What `read_state` asks, for operations that begin with it."""
    return ask(
        Nvidia,
        patterns=list(REPORTED),
        mok_keys=list(DKMS_KEYS.values()),
        blacklist=MODPROBE_FILE,
        wanted=wanted,
    )


def then_read(
    commands: Commands, state: NvidiaState
) -> Generator[PyinfraCommand, None, NvidiaState]:
    """Run the commands, with `state = yield from …`; the host is read again only if there were
    any."""
    changed = False
    for command in commands:
        changed = True
        yield command
    return (read_state(wanted=True) or state) if changed else state


def installed(
    plan: DriverPlan,
    state: NvidiaState,
    repository: Callable[[NvidiaState], Repository],
    files: Sequence[Entry],
) -> Commands:
    """Packages and configuration: all that can be done before the module is loaded."""
    found = get_fact(PathStates, paths=[entry.path for entry in files])
    wrong = differences(files, found)
    reasons = [*plan.reasons, *wrong.values()]
    if state.initramfs_stale:
        reasons.append("the initramfs may still load nouveau")
    yield from with_reasons(reasons, _install(plan, state, repository, list(wrong)))


def _install(
    plan: DriverPlan,
    state: NvidiaState,
    repository: Callable[[NvidiaState], Repository],
    wrong: list[Entry],
) -> Commands:
    # Configuration first: nouveau must be kept out before a package triggers the initramfs.
    if wrong:
        yield apply_command(wrong)
    if plan.choice.source == "nvidia":
        yield from inner(apt.repository)(repository(state))
    others = tuple(name for name in plan.remove if name.startswith(PINNING))
    if plan.pinning or others:
        unhold = tuple(name for name in plan.unhold if name in others)
        yield _transaction(install=plan.pinning, remove=others, unhold=unhold)
    if plan.install or plan.remove or plan.unhold:
        yield from _driver(plan)
    if plan.fabric:
        yield from _fabric(plan)
    changed = bool(plan.pinning or others or plan.install or plan.remove or plan.fabric or wrong)
    now = (read_state(wanted=True) if changed else state) or state
    if unbuilt(plan.packages, now):
        yield from _build(now)
    if parts := unheld(now):
        yield _transaction(hold=parts)
    if now.initramfs_stale:
        yield StringCommand(f"update-initramfs -u -k {now.next_kernel}")


def _build(state: NvidiaState) -> Commands:
    """Build the module for the kernel that boots next. What a metapackage of headers brings may be
    for a newer kernel. The hook of the headers starts DKMS; if it failed, this shows why."""
    own = own_headers(Kernel(state.next_kernel, ()))
    if own not in state.packages:
        if not get_fact(OfferedVersions, packages=[own]):
            return  # module_problems says so
        yield _transaction(install=(own,))
    yield StringCommand("dkms", "autoinstall", "-k", state.next_kernel)


def _driver(plan: DriverPlan) -> Commands:
    install = plan.install
    if plan.switching:
        install = yield from _named_versions(plan.install, f"{plan.choice.branch}.")
    remove = tuple(name for name in plan.remove if not name.startswith(PINNING))
    unhold = tuple(name for name in plan.unhold if not name.startswith(PINNING))
    yield _transaction(install=install, remove=remove, unhold=unhold)


def _fabric(plan: DriverPlan) -> Commands:
    """The fabric manager refuses a driver of any version but its own."""
    state = read_state(wanted=True)
    driver = userspace_version(state) if state else None
    if state is None or driver is None or fabric_fits(plan.packages, state):
        return
    upstream = driver.partition("-")[0]
    specs = yield from _named_versions(plan.fabric, f"{upstream}-")
    yield _transaction(install=specs, unhold=tuple(n for n in plan.fabric if n in state.packages))


def _named_versions(
    packages: Sequence[str], beginning: str
) -> Generator[PyinfraCommand, None, tuple[str, ...]]:
    """`name=version` for the newest version that begins so; packages that have no version of a
    driver at all (kernel headers) stay without."""
    offered = get_fact(OfferedVersions, packages=list(packages))
    fitting = {
        name: next((each for each in versions if each.startswith(beginning)), None)
        for name, versions in offered.items()
    }
    specs = []
    for name in packages:
        if version := fitting.get(name):
            specs.append(f"{name}={version}")
        elif driver_packages([name]):
            yield refuse([f"no package source offers {name} in a version {beginning}…"])
        else:
            specs.append(name)
    return tuple(specs)


def _transaction(
    *,
    install: tuple[str, ...] = (),
    remove: tuple[str, ...] = (),
    unhold: tuple[str, ...] = (),
    hold: tuple[str, ...] = (),
) -> StringCommand:
    return StringCommand(script(AptPlan(install=install, remove=remove, unhold=unhold, hold=hold)))
