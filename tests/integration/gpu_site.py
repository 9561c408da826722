"""GPU servers whose GPUs are doubles: their inventory, their deploys, and machines."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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

ROOT = Path(__file__).parents[2]
CONTAINER = "llmhost-llamacpp-1"
_TASKS = (
    *(check_host, configure_system, install_docker, guard_host, configure_gateway),
    *(install_nvidia_driver, install_container_toolkit, run_stack, heal_containers),
)


def gpu_server(settings: Settings) -> None:
    """Every component, in the order of deploy.py."""
    for task in _TASKS:
        # pyinfra's annotation of @deploy puts its own arguments first.
        cast(Callable[[Settings], object], task)(settings)


@dataclass(frozen=True)
class GpuInventory:
    """An inventory with one server, and the API keys of its clients by name."""

    path: Path
    machine: Machine
    keys: dict[str, str]

    @classmethod
    def write(
        cls, directory: Path, machine: Machine, data: dict[str, object], clients: list[str]
    ) -> "GpuInventory":
        """`data` is the host's, without API clients."""
        path, keys = directory / "inventory.py", {name: new_key() for name in clients}
        config = {"ssh_config_file": str(machine.ssh_config)}
        path.with_name("data.json").write_text(json.dumps(data | config))
        records = [{"name": name, "sha256": digest(key)} for name, key in keys.items()]
        path.write_text(
            "import json\nfrom pathlib import Path\n\n"
            f"api_clients = {json.dumps(records)}\n"
            "data = json.loads(Path(__file__).with_name('data.json').read_text())\n"
            f"servers = [({machine.name!r}, {{**data, 'api_clients': api_clients}})]\n"
        )
        return cls(path, machine, keys)

    def deploy(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """The whole deploy, by pyinfra."""
        return self._run("pyinfra", str(self.path), "deploy.py", "-y", *options)

    def verify(self, outside: Client, *options: str) -> "subprocess.CompletedProcess[str]":
        """The whole of `llmhost verify`, with a client on the network."""
        command = shlex.join(outside.command([]))
        return self.llmhost("verify", "FILE", "--outside", command, *options)

    def llmhost(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of llmhost; `FILE` is the inventory."""
        return self._run("llmhost", *(str(self.path) if a == "FILE" else a for a in arguments))

    @property
    def data(self) -> dict[str, object]:
        """The host's data."""
        config = json.loads(self.path.with_name("data.json").read_text())
        records = [{"name": name, "sha256": digest(key)} for name, key in self.keys.items()]
        return {**config, "api_clients": records}

    @contextmanager
    def changed(self, data: dict[str, object]) -> Iterator[None]:
        """The host's data with these changes."""
        path = self.path.with_name("data.json")
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | data))
        try:
            yield
        finally:
            path.write_text(before)

    def _run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        env = {**os.environ, "LLMHOST_API_KEY": self.keys["test"]}
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900
        )


@dataclass(frozen=True)
class GpuServer:
    """A deployed server whose service llamacpp has a GPU, a client on its LAN, and a key."""

    machine: Machine
    client: Client
    data: dict[str, object]
    inventory: GpuInventory

    @property
    def key(self) -> str:
        return self.inventory.keys["test"]

    def status(self, key: str) -> str:
        """The gateway's answer to a client with this key."""
        url = f"https://{self.machine.address}:{self.settings().gateway.port}/v1/models"
        command = ["curl", "-sk", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", url]
        return self.client.run([*command, "-H", f"Authorization: Bearer {key}"]).stdout

    def container(self) -> str:
        """Which container runs, and since when."""
        form = "{{.Id}} {{.State.StartedAt}} {{.State.Running}}"
        return self.machine.ssh(f"docker inspect -f '{form}' {CONTAINER}").stdout

    def settings(self, **changes: object) -> Settings:
        return read_settings(self.data | changes)

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
def gpu_machine(
    top: Path, flavour: str, suite: str | None = None, clients: Sequence[str] = ()
) -> Iterator[GpuServer]:
    """A machine of a flavour that was deployed, on a LAN of its own. `suite` names the release that
    its packages come from, if it is not the one that the machine seems to run. Its inventory has
    the clients `test` and `clients`; the first deploy knows only `test`."""
    wanted = FLAVOURS[flavour]
    fingerprints = build_site(top / "apt")
    with (
        Lan.create(f"gpu-{suite or flavour}") as lan,
        serving(top / "apt", lan.gateway) as url,
        ImageRegistry(lan.gateway, top / "registry") as registry,
    ):
        client, machine = (
            lan.client("client"),
            lan.machine("gpu-server", suite=suite or wanted.suite),
        )
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
            "gateway_ca_directory": str(top / "ca"),
        }
        inventory = GpuInventory.write(top, machine, data, ["test", *clients])
        data["api_clients"] = [{"name": "test", "sha256": digest(inventory.keys["test"])}]
        converge(machine, gpu_server, read_settings(data))
        yield GpuServer(machine, client, data, inventory)
