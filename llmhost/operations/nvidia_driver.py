"""The driver of a host's NVIDIA GPUs."""

from collections.abc import Callable, Sequence

from pyinfra.api import StringCommand

from llmhost.nvidia.driver import Unsatisfiable
from llmhost.nvidia.plan import (
    DriverPlan,
    DriverPolicy,
    gpu_drift,
    impossible,
    module_problems,
    plan_driver,
    reboot_reasons,
    refused_limits,
    smi_warnings,
    unmended_holes,
    unusable,
)
from llmhost.nvidia.state import NvidiaState
from llmhost.operations import systemd
from llmhost.operations.changes import explain, note, refuse
from llmhost.operations.composition import inner
from llmhost.operations.declaration import Commands, declared
from llmhost.operations.files import apply_command
from llmhost.operations.files import present as present_files
from llmhost.operations.nvidia_packages import (
    UNREADABLE,
    installed,
    nvidia_question,
    read_state,
    then_read,
)
from llmhost.operations.reboot import reboot
from llmhost.system.apt_repository import Repository
from llmhost.system.files import Entry, File
from llmhost.system.wsl import CONFIGURATION, RESTART, with_systemd

GPU_UNIT = "llmhost-gpu.service"
"""Switches persistence mode on and sets the power limit at boot."""


@declared(prefetch=lambda policy, **_: [nvidia_question(wanted=bool(policy.requests))])
def present(
    policy: DriverPolicy,
    *,
    repository: Callable[[NvidiaState], Repository],
    files: Sequence[Entry],
    probe: Sequence[Entry],
    reboot_timeout_seconds: int | None,
) -> Commands:
    """A driver that fits the GPUs: installed, held, loaded and usable; nothing on a host without.

    `repository` makes NVIDIA's repository for a host, `files` are the configuration of driver and
    apt, `probe` queries NVML, however the driver was installed. Without `reboot_timeout_seconds`
    the deploy never reboots the host; it refuses it until somebody has. It also refuses a host
    whose GPUs do not work, with the reasons: before any change if they are known then, otherwise
    in the end, so that no container is recreated on it.
    """
    wanted = bool(policy.requests)
    state = read_state(wanted=wanted)
    if state is None:
        yield refuse([UNREADABLE])
        return
    if not (state.has_gpu or wanted) or not (policy.managed or wanted):
        return
    if sentences := impossible(policy, state):
        yield refuse(sentences)
        return
    if state.is_wsl and state.init != "systemd":
        yield from _without_systemd(state)
        return
    if state.has_gpu and policy.managed and not state.is_wsl:
        try:
            plan = plan_driver(policy, state)
        except Unsatisfiable as error:
            yield refuse(error.sentences)
            return
        files = [*files, *_modules_file(plan)]
        everything = [*files, *probe]
        state = yield from then_read(installed(plan, state, repository, everything), state)
        state = yield from then_read(_loaded(plan, state, reboot_timeout_seconds), state)
        state = yield from then_read(_serving(plan, files), state)
        state = yield from then_read(_set(gpu_drift(policy, state)), state)
        limits = refused_limits(policy, state)
        note([*plan.choice.notes, *unmended_holes(policy, state), *limits])
    elif state.has_gpu:
        yield from inner(present_files)(*probe)
        holes = () if state.is_wsl else unmended_holes(policy, state)
        note([*smi_warnings(state), *holes])
    if sentences := unusable(policy, state):
        yield refuse(sentences)


def _set(drift: Sequence[str]) -> Commands:
    """Apply the declared settings of the GPUs."""
    if drift:
        explain(drift)
        yield StringCommand(f"systemctl restart {GPU_UNIT}")


def _modules_file(plan: DriverPlan) -> list[Entry]:
    """Kernel modules that the driver's services need and nothing loads by itself."""
    lines = "".join(f"{name}\n" for name in plan.packages.kernel_modules)
    head = "# Managed by llmhost: edit the inventory instead.\n"
    return [File("/etc/modules-load.d/llmhost-nvidia.conf", head + lines)] if lines else []


def _without_systemd(state: NvidiaState) -> Commands:
    """On WSL the driver is Windows's, and systemd is what may be missing."""
    wanted = with_systemd(state.wsl_conf)
    if wanted != state.wsl_conf:
        explain([f"{CONFIGURATION} does not start systemd"])
        yield apply_command([File(CONFIGURATION, wanted)])
    yield refuse([RESTART])


def _loaded(plan: DriverPlan, state: NvidiaState, timeout_seconds: int | None) -> Commands:
    """The installed module in the kernel, which takes a reboot."""
    if problems := module_problems(plan, state):
        yield refuse(problems)
        return
    reasons = reboot_reasons(state, plan.choice)
    if not reasons:
        return
    if timeout_seconds is None:
        yield refuse([f"{reason}: reboot the host, then deploy again" for reason in reasons])
        return
    explain([f"the host is rebooted: {reason}" for reason in reasons])
    yield from reboot(timeout_seconds)
    state = read_state(wanted=True) or state
    if still := reboot_reasons(state, plan.choice):
        yield refuse([f"even after a reboot {reason}" for reason in still])


def _serving(plan: DriverPlan, files: Sequence[Entry]) -> Commands:
    """The driver's units run, and ours that sets the GPUs."""
    for unit in plan.packages.units:
        yield from inner(systemd.service)(unit)
    own = [entry.path for entry in files if entry.path.endswith(GPU_UNIT)]
    yield from inner(systemd.service)(GPU_UNIT, newer_than=own)
