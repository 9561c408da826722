"""NVIDIA's container toolkit."""

from functools import partial
from pathlib import PurePosixPath

from llmhost.nvidia.container_toolkit import toolkit_repository
from llmhost.nvidia.state import NvidiaState
from llmhost.operations import container_toolkit, systemd
from llmhost.operations.component import component
from llmhost.options.container_toolkit import ContainerToolkit
from llmhost.resources import FILES
from llmhost.settings import Settings
from llmhost.system.apt_repository import Repository
from llmhost.system.files import Directory, Entry, File

_UNITS = "/etc/systemd/system"
_DROP_INS = {
    f"{_UNITS}/docker.service.d/50-llmhost-gpu.conf": "docker.conf",
    f"{_UNITS}/nvidia-cdi-refresh.service.d/50-llmhost.conf": "cdi-refresh.conf",
}


@component("Container toolkit")
def install_container_toolkit(settings: Settings) -> None:
    """GPUs for containers, through CDI; nothing on a host without GPUs. Comes after Docker."""
    options = settings.container_toolkit
    systemd.without_overrides(
        *("nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path"),
        *("nvidia-persistenced.service", "nvidia-fabricmanager.service", "llmhost-gpu.service"),
        known=settings.system.accepted_overrides,
        then="reload",
        name="Remove overrides of NVIDIA's units",
    )
    container_toolkit.present(
        name="Install the NVIDIA container toolkit and configure Docker for it",
        version=options.version,
        repository=partial(_repository, options),
        units=_units(),
    )


def _repository(options: ContainerToolkit, state: NvidiaState) -> Repository:
    return toolkit_repository(
        options.repository_url,
        options.repository_fingerprint,
        options.key_url,
        "arm64" if state.machine == "aarch64" else "amd64",
    )


def _units() -> list[Entry]:
    """Drop-ins that start Docker after the CDI specs are written, or after a limited wait."""
    text = {path: (FILES / "container_toolkit" / name) for path, name in _DROP_INS.items()}
    directories = [Directory(str(PurePosixPath(path).parent)) for path in _DROP_INS]
    return [*directories, *(File(path, file.read_text()) for path, file in text.items())]
