"""NVIDIA's container toolkit: its repository, the runtime entry, and whether its specs are fresh.

Pure: the state comes from facts/nvidia.py.
"""

from llmhost.nvidia.packages import TOOLKIT
from llmhost.nvidia.state import CdiSpec, NvidiaState
from llmhost.system.apt_repository import Repository
from llmhost.system.files import Absent, Entry, File

REFRESH_PATH = "nvidia-cdi-refresh.path"
REFRESH_SERVICE = "nvidia-cdi-refresh.service"
"""The toolkit's own units, since 1.18: they write the CDI spec at boot and when the driver changes;
they miss a driver that was removed, and MIG."""

_CONDITION = """\
# Managed by llmhost: edit the inventory instead.
# NVIDIA's condition does not know what Debian calls its open module.
[Service]
ExecCondition=
ExecCondition=/bin/sh -c 'grep -q "/nvidia-current-open[.]ko" \
  "/lib/modules/$$(cat /proc/sys/kernel/osrelease)/modules.dep"'
"""
_CONDITION_PATH = f"/etc/systemd/system/{REFRESH_SERVICE}.d/60-llmhost-condition.conf"

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
    "default-runtime": "runc",
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


def refresh_condition(state: NvidiaState) -> Entry:
    """The condition on which NVIDIA's unit writes the CDI spec, where its own does not hold."""
    if "nvidia-open-kernel-dkms" in state.packages:
        return File(_CONDITION_PATH, _CONDITION)
    return Absent(_CONDITION_PATH)


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


REFRESHED = "/var/run/cdi/nvidia.yaml"
"""What the toolkit's units write."""

UVM = "/dev/nvidia-uvm"
"""The device node without which CUDA fails in a container that has a GPU."""


def stale_specs(state: NvidiaState) -> list[str]:
    """Why containers would not get the GPUs that are there, with the file that is to blame.

    Only what CDI itself would take counts: specs of NVIDIA's GPUs, and of two for one GPU the one
    in the later directory.
    """
    # CDI on WSL knows only `all` (toolkit, pkg/nvcdi/lib-wsl.go).
    wanted = ["all"] if state.is_wsl else sorted(gpu.uuid for gpu in state.gpus)
    found: list[str] = []
    specs: dict[str, CdiSpec] = {}
    for name in wanted:
        winners = state.cdi_winners.get(name, ())
        if len(winners) > 1:
            paths = " and ".join(spec.path for spec in winners)
            found.append(f"{paths} both describe {name}, so CDI uses neither: remove one")
        elif winners:
            specs[winners[0].path] = winners[0]
        else:
            what = "the GPUs of this host" if name == "all" else name
            found.append(f"no CDI spec describes {what}")
    for spec in specs.values():
        found += [f"{spec.path} names {path}, which does not exist" for path in spec.gone]
        if not state.is_wsl and UVM not in spec.nodes:
            found.append(f"{spec.path} lacks {UVM}, without which CUDA fails")
        # A GPU that was taken out stays in the spec of the toolkit's units until they run again.
        there = {gpu.uuid for gpu in state.gpus}
        extra = [name for name in spec.devices if name.startswith("GPU-") and name not in there]
        if spec.path == REFRESHED and not state.is_wsl:
            found += [f"{spec.path} describes {uuid}, which is not on this host" for uuid in extra]
    unreadable = [spec.path for spec in state.cdi if spec.kind == "unreadable"]
    if found and unreadable:
        found += [f"{path} cannot be read as a CDI spec" for path in unreadable]
    return found
