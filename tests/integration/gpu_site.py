"""GPU servers whose GPUs are doubles: their deploy, and machines that are deployed."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from llmhost.gateway.keys import digest, new_key
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from llmhost.tasks.container_toolkit import install_container_toolkit
from llmhost.tasks.docker import install_docker
from llmhost.tasks.firewall import guard_host
from llmhost.tasks.gateway import configure_gateway
from llmhost.tasks.healing import heal_containers
from llmhost.tasks.nvidia_driver import install_nvidia_driver
from llmhost.tasks.preflight import check_host
from llmhost.tasks.stack import run_stack
from llmhost.tasks.system import configure_system
from testbed import Client, Lan, Machine, tiny_model
from testbed.image_registry import ImageRegistry
from tests.doubles.apt_repository import serving
from tests.doubles.nvidia.engine import push_gpu_engine
from tests.doubles.nvidia.flavours import FLAVOURS, build_site, dress, site_data
from tests.integration.harness import converge

CONTAINER = "llmhost-llamacpp-1"
_TASKS = (
    *(check_host, configure_system, install_nvidia_driver, install_docker),
    *(install_container_toolkit, guard_host, configure_gateway, run_stack),
    heal_containers,
)


def gpu_server(settings: Settings) -> None:
    """Every component, in the order of deploy.py."""
    for task in _TASKS:
        # pyinfra's annotation of @deploy puts its own arguments first.
        cast(Callable[[Settings], object], task)(settings)


@dataclass(frozen=True)
class GpuServer:
    """A deployed server whose service llamacpp has a GPU, a client on its LAN, and a key."""

    machine: Machine
    client: Client
    data: dict[str, object]
    key: str

    def settings(self, **changes: object) -> Settings:
        return read_settings(self.data | changes)

    def inventory(self, directory: Path) -> Path:
        """An inventory file with this server."""
        place = directory / "inventory.py"
        data = self.data | {"ssh_config_file": str(self.machine.ssh_config)}
        place.write_text(f"servers = [({self.machine.name!r}, {data!r})]\n")
        return place

    def verify(self, directory: Path, *only: str) -> "subprocess.CompletedProcess[str]":
        """Run the server tests of the GPU, as `llmhost verify` does."""
        site = directory / "site.json"
        config = {"ssh_config_file": str(self.machine.ssh_config)}
        site.write_text(json.dumps({self.machine.name: self.data | config}))
        outside = shlex.join(self.client.command([]))
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
        command += ["llmhost/checks/test_gpu.py", "--site", str(site), "--outside", outside]
        environment = {**os.environ, "LLMHOST_API_KEY": self.key}
        return subprocess.run(
            [*command, *only], env=environment, capture_output=True, text=True, check=False
        )


@contextmanager
def gpu_machine(top: Path, flavour: str, suite: str | None = None) -> Iterator[GpuServer]:
    """A machine of a flavour that was deployed, on a LAN of its own. `suite` names the release that
    its packages come from, if it is not the one that the machine seems to run."""
    wanted, key = FLAVOURS[flavour], new_key()
    fingerprints = build_site(top / "apt")
    with (
        Lan.create(f"gpu-{suite or flavour}") as lan,
        serving(top / "apt", lan.gateway) as url,
        ImageRegistry(lan.gateway, top / "registry") as registry,
    ):
        client, machine = lan.client("client"), lan.machine("gpu-server", suite=suite)
        dress(machine, wanted, top / "apt", url)
        model = {"name": "tiny", "service": "llamacpp", "context_tokens": 512}
        model |= {"source": str(top / "tiny.gguf"), "sha256": tiny_model.write(top / "tiny.gguf")}
        data: dict[str, object] = {
            **site_data(wanted, fingerprints, url),
            "preflight_min_memory_gib": 1.0,
            "preflight_min_free_disk_gib": 3.0,
            "docker_insecure_registries": [registry.name],
            "services": ["llamacpp"],
            "llamacpp_image": push_gpu_engine(registry),
            "models": [model],
            "api_clients": [{"name": "test", "sha256": digest(key)}],
        }
        converge(machine, gpu_server, read_settings(data))
        yield GpuServer(machine, client, data, key)
