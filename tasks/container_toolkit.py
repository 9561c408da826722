"""NVIDIA's container toolkit."""

from functools import partial

from pyinfra.api import deploy

from llmhost.apt_repository import Repository
from llmhost.container_toolkit import WSL_DROP_IN, WSL_SCRIPT, toolkit_repository
from llmhost.filetree import File
from llmhost.nvidia_state import NvidiaState
from llmhost.operations import container_toolkit
from llmhost.settings.container_toolkit import ContainerToolkit
from llmhost.settings.root import Settings
from llmhost.template import render
from llmhost.wsl import SMI as WSL_SMI


@deploy("Container toolkit")
def install_container_toolkit(settings: Settings) -> None:
    """GPUs for containers, through CDI; nothing on a host without GPUs. Comes after Docker."""
    options = settings.container_toolkit
    container_toolkit.present(
        name="Install the NVIDIA container toolkit and tell Docker of it",
        version=options.version,
        repository=partial(_repository, options),
        wsl_files=[
            File(WSL_SCRIPT, render("container_toolkit/wsl-cdi.j2", smi=WSL_SMI), mode="0755"),
            File(WSL_DROP_IN, render("container_toolkit/llmhost-wsl.conf.j2", script=WSL_SCRIPT)),
        ],
    )


def _repository(options: ContainerToolkit, state: NvidiaState) -> Repository:
    return toolkit_repository(
        options.repository_url,
        options.repository_fingerprint,
        options.key_url,
        "arm64" if state.machine == "aarch64" else "amd64",
    )
