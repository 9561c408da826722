"""NVIDIA's container toolkit: its repository, the runtime entry, and whether its specs are fresh.

Pure: the state comes from facts/nvidia.py.
"""

from llmhost.nvidia.packages import TOOLKIT
from llmhost.nvidia.state import NvidiaState
from llmhost.system.apt_repository import Repository

REFRESH_PATH = "nvidia-cdi-refresh.path"
REFRESH_SERVICE = "nvidia-cdi-refresh.service"
"""The toolkit's own units, since 1.18: they write the CDI spec at boot and when the driver changes;
they miss a driver that was removed, and MIG."""

# Found on hosts that had the toolkit's predecessors, and set up by earlier instructions. apt
# refuses two keys for one source.
_STALE_LISTS = (
    "/etc/apt/sources.list.d/nvidia-docker.list",
    "/etc/apt/sources.list.d/nvidia-container-runtime.list",
    "/etc/apt/sources.list.d/libnvidia-container.list",
    "/etc/apt/sources.list.d/nvidia-container-toolkit.list",
)

# The runtime is declared for Compose files that ask for it, and is not the default: images that set
# NVIDIA_VISIBLE_DEVICES=all would take every GPU.
DAEMON_CONFIG = {
    "features": {"cdi": True},
    "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}},
}
"""What dockerd must know of GPUs; merged into daemon.json."""


def toolkit_repository(url: str, fingerprint: str, key_url: str, architecture: str) -> Repository:
    """The flat repository below `url` for an architecture as dpkg names it."""
    return Repository(
        label="nvidia-container-toolkit",
        uri=f"{url}/{architecture}/",
        suite="/",
        components=(),
        fingerprint=fingerprint,
        key_url=key_url,
        replaces=_STALE_LISTS,
    )


def toolkit_reasons(state: NvidiaState, version: str) -> list[str]:
    """Which of the four packages are not there in this version, and held."""
    found = {name: state.packages.get(name) for name in TOOLKIT}
    return [
        *(f"{name} is not installed" for name, package in found.items() if package is None),
        *(
            f"{name} is {package.version}, not {version}"
            for name, package in found.items()
            if package and package.version != version
        ),
        *(f"{name} is not held" for name, package in found.items() if package and not package.held),
    ]


def stale_specs(state: NvidiaState) -> list[str]:
    """Why containers would not get the GPUs that are there."""
    found = [
        f"{spec.path} can not be read as a CDI spec"
        for spec in state.cdi
        if spec.kind == "unreadable"
    ]
    names = state.cdi_devices
    if state.is_wsl:
        # CDI on WSL knows only `all` (toolkit, pkg/nvcdi/lib-wsl.go).
        found += [] if "all" in names else ["no CDI spec describes the GPUs of this host"]
    else:
        there = {gpu.uuid for gpu in state.gpus}
        described = {name for name in names if name.startswith("GPU-")}
        found += [f"no CDI spec describes {uuid}" for uuid in sorted(there - described)]
        found += [
            f"a CDI spec describes {uuid}, which is not on this host"
            for uuid in sorted(described - there)
        ]
    found += [f"a CDI spec hands out {path}, which is gone" for path in state.cdi_gone]
    return found
