"""NVIDIA's container toolkit."""

from collections.abc import Callable, Sequence

from pyinfra.api import StringCommand

from llmhost.nvidia.container_toolkit import (
    DAEMON_CONFIG,
    REFRESH_PATH,
    REFRESH_SERVICE,
    refresh_condition,
    stale_specs,
    toolkit_reasons,
)
from llmhost.nvidia.packages import TOOLKIT
from llmhost.nvidia.state import NvidiaState
from llmhost.operations import apt, docker, files, systemd
from llmhost.operations.changes import explain, refuse
from llmhost.operations.composition import inner, with_reasons
from llmhost.operations.declaration import Commands, declared
from llmhost.operations.nvidia_packages import (
    UNREADABLE,
    nvidia_question,
    read_state,
    then_read,
)
from llmhost.system.apt_repository import Repository
from llmhost.system.files import Entry

HOOK = "/usr/bin/nvidia-cdi-hook"
"""dockerd looks for it when it starts, and offers GPUs only if it was there."""


@declared(prefetch=lambda **_: [nvidia_question(wanted=False)])
def present(
    *,
    version: str,
    repository: Callable[[NvidiaState], Repository],
    units: Sequence[Entry],
) -> Commands:
    """The toolkit in this version, fresh CDI specs, and a dockerd that knows of both.

    Nothing on a host without NVIDIA hardware. All four packages get the same version and are held.
    `repository` makes the toolkit's repository for a host; `units` are files of systemd that order
    its units and Docker's.
    """
    state = read_state(wanted=False)
    if state is None:
        yield refuse([UNREADABLE])
        return
    if not state.has_gpu:
        return
    installed = with_reasons(
        toolkit_reasons(state, version), _installed(version, repository(state))
    )
    state = yield from then_read(installed, state)
    yield from inner(files.present)(*units, refresh_condition(state))
    yield from inner(systemd.service)(REFRESH_PATH, others=[REFRESH_SERVICE])
    # The specs are on a tmpfs: without it no container gets a GPU after a reboot.
    yield from inner(systemd.starts_at_boot)(REFRESH_SERVICE)
    if stale := stale_specs(state):
        explain(stale)
        yield from _refresh()
    yield from inner(docker.daemon)(DAEMON_CONFIG, owner="container_toolkit")
    yield from inner(systemd.service)(
        "docker.service", newer_than=[docker.CONFIG, HOOK], afterwards=docker.SETTLE
    )


def _installed(version: str, repository: Repository) -> Commands:
    yield from inner(apt.repository)(repository)
    versions = dict.fromkeys(TOOLKIT, version)
    yield from inner(apt.packages)(*TOOLKIT, versions=versions, hold=True)


def _refresh() -> Commands:
    """CDI specs that describe the GPUs that are there."""
    yield StringCommand(f"systemctl restart {REFRESH_SERVICE}")
    state = read_state(wanted=True)
    if state and (stale := stale_specs(state)):
        yield refuse([f"even after {REFRESH_SERVICE} ran, {reason}" for reason in stale])
