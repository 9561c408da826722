"""The deploy of a GPU server, for machines whose GPU is a double."""

from collections.abc import Callable
from typing import cast

from llmhost.settings import Settings
from llmhost.tasks.container_toolkit import install_container_toolkit
from llmhost.tasks.docker import install_docker
from llmhost.tasks.firewall import guard_host
from llmhost.tasks.gateway import configure_gateway
from llmhost.tasks.nvidia_driver import install_nvidia_driver
from llmhost.tasks.preflight import check_host
from llmhost.tasks.stack import run_stack
from llmhost.tasks.system import configure_system

_TASKS = (
    *(check_host, configure_system, install_nvidia_driver, install_docker),
    *(install_container_toolkit, guard_host, configure_gateway, run_stack),
)


def gpu_server(settings: Settings) -> None:
    """Every component, in the order of deploy.py."""
    for task in _TASKS:
        # pyinfra's annotation of @deploy puts its own arguments first.
        cast(Callable[[Settings], object], task)(settings)
