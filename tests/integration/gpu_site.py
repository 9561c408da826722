"""A server whose GPUs are doubles: its inventory, its deploys, and ways in which GPUs break."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from llmhost.gateway.keys import digest, new_key
from llmhost.settings import Settings
from llmhost.tasks.container_toolkit import install_container_toolkit
from llmhost.tasks.docker import install_docker
from llmhost.tasks.firewall import guard_host
from llmhost.tasks.gateway import configure_gateway
from llmhost.tasks.nvidia_driver import install_nvidia_driver
from llmhost.tasks.preflight import check_host
from llmhost.tasks.stack import run_stack
from llmhost.tasks.system import configure_system
from testbed import Client, Machine

ROOT = Path(__file__).parents[2]
_TASKS = (
    *(check_host, configure_system, guard_host, configure_gateway, install_docker),
    *(install_nvidia_driver, install_container_toolkit, run_stack),
)


def gpu_server(settings: Settings) -> None:
    """Every component, in the order of deploy.py."""
    for task in _TASKS:
        # pyinfra's annotation of @deploy puts its own arguments first.
        cast(Callable[[Settings], object], task)(settings)


@dataclass(frozen=True)
class Failure:
    """A way in which GPUs fail: commands that cause and undo it, what a deploy reports, data of
    the inventory, and whether `llmhost plan` sees it, which changes nothing."""

    cause: str
    undo: str
    reported: str
    data: dict[str, object] = field(default_factory=dict)
    foreseen: bool = True


_SMI, _CTK = "/usr/bin/nvidia-smi", "/usr/bin/nvidia-ctk"
_KEEP = "cp -a {0} /root/kept"
_RESTORE = "cp -a /root/kept {0}"
_SAY = "printf '#!/bin/sh\\necho \"{1}\"; exit 255\\n' >{0}"
_PCI = "/etc/llmhost-double/pci/0000:0[12]:00.*"
_OLD = "sed -i s/595[.]91[.]07/470.256.02/ /usr/bin/nvidia-smi /proc/driver/nvidia/version"

FAILURES = {
    "all GPUs are gone": Failure(
        f"mkdir /root/gone; mv {_PCI} /root/gone/",
        "mv /root/gone/* /etc/llmhost-double/pci/",
        "no NVIDIA GPU is on this host",
    ),
    "one GPU is lost": Failure(
        "mkdir -p /run/llmhost-double; touch /run/llmhost-double/1.lost",
        "rm /run/llmhost-double/1.lost",
        "nvidia-smi says 'GPU is lost'",
    ),
    "the next kernel has no module": Failure(
        "touch /boot/vmlinuz-9.1.0-1-amd64",
        "rm /boot/vmlinuz-9.1.0-1-amd64",
        "linux-headers-9.1.0-1-amd64",
        foreseen=False,
    ),
    "the driver is too old": Failure(
        _OLD,
        "sed -i s/470[.]256[.]02/595.91.07/ /usr/bin/nvidia-smi /proc/driver/nvidia/version",
        "needs driver branch 580",
        {"nvidia_driver_managed": False, "llamacpp_cuda": "13.0"},
    ),
    "NVML fails": Failure(
        f"{_KEEP} && {_SAY}".format(_SMI, "Failed to initialize NVML: Unknown Error"),
        _RESTORE.format(_SMI),
        "Failed to initialize NVML: Unknown Error",
    ),
    "the CDI spec fails": Failure(
        f"{_KEEP} && {_SAY} && rm /var/run/cdi/nvidia.yaml".format(_CTK, "no spec"),
        f"{_RESTORE} && systemctl reset-failed 'nvidia-cdi-refresh.*'".format(_CTK),
        "nvidia-cdi-refresh.service",
        foreseen=False,
    ),
    "its packages cannot be installed": Failure(
        "dpkg --remove --force-depends nvidia-persistenced && rm -r /var/lib/apt/lists/* &&"
        " echo 'Acquire::http::Proxy \"http://127.0.0.1:9\";' >/etc/apt/apt.conf.d/99broken",
        "rm /etc/apt/apt.conf.d/99broken",
        "nvidia-persistenced",
        foreseen=False,
    ),
}


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
