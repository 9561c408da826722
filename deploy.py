"""The tasks of a host, by its role. Run it with `pyinfra inventory/llm.py deploy.py`.

pyinfra executes this file once for each host.
"""

from collections.abc import Callable
from functools import partial

from pyinfra import host, state

from llmhost.inventory.role import Role
from llmhost.operations.inventory import later_addresses, llm_endpoint_of, monitored_by, site_host
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.operations.summary import summarise
from llmhost.settings import Settings
from llmhost.tasks.app_server import prepare_app_server
from llmhost.tasks.backup import schedule_backups
from llmhost.tasks.container_toolkit import install_container_toolkit
from llmhost.tasks.docker import install_docker
from llmhost.tasks.egress import limit_egress
from llmhost.tasks.firewall import guard_app_server, guard_host
from llmhost.tasks.gateway import configure_gateway
from llmhost.tasks.healing import heal_containers
from llmhost.tasks.lock import lock_host
from llmhost.tasks.monitoring import monitor_host
from llmhost.tasks.network import configure_network
from llmhost.tasks.nvidia_driver import install_nvidia_driver
from llmhost.tasks.preflight import check_app_server, check_gateway, check_host
from llmhost.tasks.receipt import write_receipt
from llmhost.tasks.stack import run_stack
from llmhost.tasks.system import configure_system

Task = Callable[[Settings], None]

_check_host = partial(check_host, set_later=later_addresses(host))
_prepare_app_server = partial(prepare_app_server, endpoint=llm_endpoint_of(host))
_monitor_host = partial(monitor_host, hosts=monitored_by(host))
_run_stack = partial(run_stack, host_name=host.name)
_schedule_backups = partial(schedule_backups, host_name=host.name)
TASKS: dict[Role, tuple[Task, ...]] = {
    Role.LLM_SERVER: (
        _check_host,
        configure_system,
        configure_network,
        limit_egress,
        install_docker,
        guard_host,  # a start of Docker puts its rules ahead of others
        configure_gateway,
        _monitor_host,
        # A broken or missing GPU fails the host from here on (docs/decisions/0087).
        install_nvidia_driver,
        install_container_toolkit,
        _run_stack,
        heal_containers,
        _schedule_backups,
        write_receipt,
    ),
    Role.GATEWAY: (
        check_gateway,
        configure_system,
        configure_network,
        guard_host,
        configure_gateway,
        _monitor_host,
        write_receipt,
    ),
    Role.APP_SERVER: (
        check_app_server,
        configure_network,
        guard_app_server,
        _prepare_app_server,
    ),
}

patch_run(state, host)
summarise(state)
here = site_host(host)
lock_host(here.settings)
# pyinfra identifies an operation by its lines and by these positions: without host.loop it would
# merge operations of different tasks on hosts of different roles.
for role, tasks in host.loop(TASKS.items()):
    for task in host.loop(tasks if role is here.role else ()):
        task(here.settings)
