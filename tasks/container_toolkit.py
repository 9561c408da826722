"""NVIDIA's container toolkit."""

from functools import partial

from llmhost.nvidia.container_toolkit import toolkit_repository
from llmhost.nvidia.state import NvidiaState
from llmhost.operations import container_toolkit, systemd
from llmhost.operations.component import component
from llmhost.options.container_toolkit import ContainerToolkit
from llmhost.settings import Settings
from llmhost.system.apt_repository import Repository


@component("Container toolkit")
def install_container_toolkit(settings: Settings) -> None:
    """GPUs for containers, through CDI; nothing on a host without GPUs. Comes after Docker."""
    options = settings.container_toolkit
    systemd.without_overrides(
        *("nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path"),
        *("nvidia-persistenced.service", "llmhost-gpu.service"),
        known=settings.system.accepted_overrides,
        then="reload",
        name="Remove overrides of NVIDIA's units",
    )
    container_toolkit.present(
        name="Install the NVIDIA container toolkit and tell Docker of it",
        version=options.version,
        repository=partial(_repository, options),
    )


def _repository(options: ContainerToolkit, state: NvidiaState) -> Repository:
    return toolkit_repository(
        options.repository_url,
        options.repository_fingerprint,
        options.key_url,
        "arm64" if state.machine == "aarch64" else "amd64",
    )
