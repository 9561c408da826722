"""The deploy: what a host becomes, in order. Run it with `pyinfra inventory/llm.py deploy.py`."""

from pyinfra import host, state

from llmhost.inventory.site import APP_SERVERS
from llmhost.operations.inventory import settings_of, upstream_of
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.operations.summary import summarise
from llmhost.tasks.app_server import prepare_app_server
from llmhost.tasks.container_toolkit import install_container_toolkit
from llmhost.tasks.docker import install_docker
from llmhost.tasks.firewall import guard_app_server, guard_host
from llmhost.tasks.gateway import configure_gateway
from llmhost.tasks.healing import heal_containers
from llmhost.tasks.lock import lock_host
from llmhost.tasks.network import configure_network
from llmhost.tasks.nvidia_driver import install_nvidia_driver
from llmhost.tasks.preflight import check_app_server, check_gateway, check_host
from llmhost.tasks.receipt import write_receipt
from llmhost.tasks.stack import run_stack
from llmhost.tasks.system import configure_system

patch_run(state, host)
summarise(state)
settings = settings_of(state, host)

lock_host(settings)
if APP_SERVERS in host.groups:
    check_app_server(settings)
    configure_network(settings)
    guard_app_server(settings)
    prepare_app_server(settings, upstream_of(state, host))
elif settings.gateway.upstreams:
    check_gateway(settings)
    configure_system(settings)
    configure_network(settings)
    guard_host(settings)
    configure_gateway(settings)
    write_receipt(settings)
else:
    check_host(settings)
    configure_system(settings)
    configure_network(settings)
    install_nvidia_driver(settings)
    install_docker(settings)
    install_container_toolkit(settings)
    guard_host(settings)
    configure_gateway(settings)
    run_stack(settings)
    heal_containers(settings)
    write_receipt(settings)
