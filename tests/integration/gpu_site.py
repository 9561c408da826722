"""The deploy of a GPU server, for machines whose GPU is a double."""

from collections.abc import Callable
from typing import cast

from llmhost.settings import Settings
from tasks.container_toolkit import install_container_toolkit
from tasks.docker import install_docker
from tasks.firewall import guard_host
from tasks.gateway import configure_gateway
from tasks.nvidia_driver import install_nvidia_driver
from tasks.preflight import check_host
from tasks.stack import run_stack
from tasks.system import configure_system

_TASKS = (
    *(check_host, configure_system, install_nvidia_driver, install_docker),
    *(install_container_toolkit, guard_host, configure_gateway, run_stack),
)


def gpu_server(settings: Settings) -> None:
    """Every component, in the order of deploy.py."""
    for task in _TASKS:
        # pyinfra's annotation of @deploy puts its own arguments first.
        cast(Callable[[Settings], object], task)(settings)
