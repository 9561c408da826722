"""The whole proof on a double: a completion through the gateway, the process that NVML lists, its
cgroup, the container of the service that was asked."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmhost.apikey import digest, new_key
from llmhost.settings.reader import read_settings
from llmhost.settings.root import Settings
from tests.doubles.apt_repository import build_repository, serving
from tests.doubles.nvidia.machine import furnish
from tests.doubles.nvidia.packages import debian_driver, headers, pinning, toolkit
from tests.integration.gpu_site import gpu_server
from tests.integration.harness import converge
from tests.machines import Client, Lan, Machine, tiny_model
from tests.machines.engine import push_engine
from tests.machines.image_registry import ImageRegistry

pytestmark = pytest.mark.machines
DRIVER = [
    *headers("linux-headers-amd64"),
    *debian_driver("580.159.03", open_module=True),
    pinning(580),
]


@dataclass(frozen=True)
class Server:
    """A server with two GPUs, of which its one service was given the second."""

    machine: Machine
    client: Client
    settings: Settings
    data: dict[str, object]
    key: str

    def verify(self, directory: Path, *only: str) -> "subprocess.CompletedProcess[str]":
        """Run the server tests of the GPU, as `llmhost verify` does."""
        site = directory / "site.json"
        config = {"ssh_config_file": str(self.machine.ssh_config)}
        site.write_text(json.dumps({self.machine.name: self.data | config}))
        outside = shlex.join(self.client.command([]))
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
        command += ["tests/server/test_gpu.py", "--site", str(site), "--outside", outside]
        environment = {**os.environ, "LLMHOST_API_KEY": self.key}
        return subprocess.run(
            [*command, *only], env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    top = tmp_path_factory.mktemp("site")
    driver = build_repository(top / "apt/debian13/x86_64", DRIVER)
    # NVIDIA names a key's file after the end of its fingerprint.
    file_name = f"{driver.fingerprint[-8:]}.pub"
    driver.key_path.rename(driver.directory / file_name)
    tools = build_repository(top / "apt/toolkit/amd64", toolkit("1.20.0-1"))
    key = new_key()
    with Lan.create("gpu-server") as lan, serving(top / "apt", lan.gateway) as url:
        client, machine = lan.client("client"), lan.machine("gpu-server")
        furnish(machine, "two-rtx-4090", "debian-13")
        with ImageRegistry(lan.gateway, top / "registry") as registry:
            data: dict[str, object] = {
                "preflight_min_memory_gib": 1.0,
                "preflight_min_free_disk_gib": 3.0,
                "nvidia_driver_repository_url": url,
                "nvidia_driver_repository_fingerprint": driver.fingerprint,
                "container_toolkit_repository_url": f"{url}/toolkit",
                "container_toolkit_key_url": f"{url}/toolkit/amd64/gpg",
                "container_toolkit_repository_fingerprint": tools.fingerprint,
                "docker_insecure_registries": [registry.name],
                "vram_gpus_gib": [24.0, 24.0],
                "services": ["llamacpp"],
                "llamacpp_image": push_engine(registry),
                "llamacpp_gpu": 1,
                "models": [
                    {
                        "name": "tiny",
                        "source": str(top / "tiny.gguf"),
                        "sha256": tiny_model.write(top / "tiny.gguf"),
                        "context_tokens": 512,
                    }
                ],
                "api_clients": [{"name": "test", "sha256": digest(key)}],
            }
            settings = read_settings(data)
            converge(machine, gpu_server, settings)
        yield Server(machine, client, settings, data, key)


def test_completion_is_proven_to_run_on_the_gpu_of_its_service(
    server: Server, tmp_path: Path
) -> None:
    result = server.verify(tmp_path)
    assert result.returncode == 0, result.stdout
    assert "test_completion_is_computed_on_the_gpu_that_the_service_was_given" in result.stdout
    assert "SKIPPED" not in result.stdout


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        ("nvmlDeviceGetComputeRunningProcesses_v3 0", "it ran on the CPU"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 3", "Not Supported"),
    ],
)
def test_an_answer_without_gpu_memory_is_no_proof(
    server: Server, tmp_path: Path, failure: str, sentence: str
) -> None:
    server.machine.ssh(f"echo '{failure}' >/etc/llmhost-double/failures")
    try:
        result = server.verify(tmp_path, "-k", "completion")
    finally:
        server.machine.ssh("rm /etc/llmhost-double/failures")
    assert result.returncode == 1 and sentence in result.stdout, result.stdout


def test_a_container_that_lost_its_gpu_is_found(server: Server, tmp_path: Path) -> None:
    name = "llmhost-llamacpp-1"
    server.machine.ssh(f"docker rename {name} kept && docker stop kept")
    server.machine.ssh("apt-get -qq -y install busybox-static")
    server.machine.ssh("tar -C / -c bin/busybox | docker import - box")
    label = "--label com.docker.compose.project=llmhost"
    label += " --label com.docker.compose.service=llamacpp"
    server.machine.ssh(f"docker run -d --name stray {label} box /bin/busybox sleep 600")
    try:
        result = server.verify(tmp_path, "-k", "exactly")
    finally:
        server.machine.ssh(f"docker rm -f stray; docker rename kept {name}; docker start {name}")
    assert result.returncode == 1 and "llamacpp" in result.stdout, result.stdout
