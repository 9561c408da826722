"""The driver of the host's NVIDIA GPUs."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from llmhost.driver_policy import driver_policy
from llmhost.nvidia.packages import UPGRADE_BLACKLIST
from llmhost.nvidia.repository import driver_repository
from llmhost.nvidia.state import NvidiaState
from llmhost.operations import nvidia_driver
from llmhost.operations.component import component
from llmhost.operations.nvidia_packages import MODPROBE_FILE
from llmhost.resources import FILES
from llmhost.settings import Settings
from llmhost.system.apt_repository import Repository
from llmhost.system.files import Directory, Entry, File
from llmhost.template import render

_PROBE = FILES / "nvidia_driver/nvml_probe.py"


@component("NVIDIA driver")
def install_nvidia_driver(settings: Settings) -> None:
    """A driver that fits the host's GPUs and its services; nothing on a host without GPUs."""
    options = settings.nvidia_driver
    nvidia_driver.present(
        driver_policy(settings),
        name="Install the NVIDIA driver, load it and hold it",
        repository=partial(_repository, options.repository_url, options.repository_fingerprint),
        files=_files(settings),
        probe=_probe(settings),
        reboot_timeout_seconds=(
            None if options.reboot == "never" else options.reboot_timeout_seconds
        ),
    )


def _repository(url: str, fingerprint: str | None, state: NvidiaState) -> Repository:
    return driver_repository(url, fingerprint, state.release, state.machine)


def _files(settings: Settings) -> list[Entry]:
    """Configuration of apt, the kernel and systemd."""
    power = settings.nvidia_driver.power_limit_watts
    apt = render("nvidia_driver/52llmhost-nvidia.j2", prefixes=UPGRADE_BLACKLIST)
    modprobe = render("nvidia_driver/llmhost-nvidia.conf.j2")
    unit = render("nvidia_driver/llmhost-gpu.service.j2", power_limit_watts=power)
    return [
        File("/etc/apt/apt.conf.d/52llmhost-nvidia", apt),
        File(MODPROBE_FILE, modprobe),
        File(f"/etc/systemd/system/{nvidia_driver.GPU_UNIT}", unit),
    ]


def _probe(settings: Settings) -> list[Entry]:
    """What reads NVML on the host, with the very nvidia-ml-py that is installed on the controller:
    one module without dependencies, so that the host needs neither pip nor a network."""
    directory = settings.nvidia_driver.probe_directory
    return [
        Directory(directory),
        File(f"{directory}/nvml_probe.py", _PROBE.read_bytes(), mode="0755"),
        File(f"{directory}/pynvml.py", _pynvml().read_bytes()),
    ]


def _pynvml() -> Path:
    spec = find_spec("pynvml")  # found, not imported: it is large, and nothing here calls it
    assert spec and spec.origin, "nvidia-ml-py is a dependency"
    return Path(spec.origin)
