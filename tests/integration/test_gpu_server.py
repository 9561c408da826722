"""The whole proof on a double: a completion through the gateway, the process that NVML lists, its
cgroup, the container of the service that was asked, and the engine's own word."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmhost.gateway.keys import digest
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from llmhost.tasks.nvidia_driver import install_nvidia_driver
from llmhost.tasks.preflight import check_host
from llmhost.tasks.stack import run_stack
from testbed import Client, Lan, Machine, tiny_model
from testbed.image_registry import ImageRegistry
from tests.doubles.apt_repository import serving
from tests.doubles.nvidia.engine import push_gpu_engine
from tests.doubles.nvidia.flavours import FLAVOURS, build_site, dress, site_data
from tests.integration.gpu_site import FAILURES, GpuInventory, gpu_server
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines
CONTAINER = "llmhost-llamacpp-1"
_CLIENTS = {name: f"client-{number}" for number, name in enumerate(FAILURES)}
"""A client for each failure, whose key is revoked meanwhile."""


@dataclass(frozen=True)
class Server:
    """A server with two GPUs, of which its one service asks for the second by UUID."""

    machine: Machine
    client: Client
    data: dict[str, object]
    key: str
    inventory: GpuInventory

    def status(self, key: str) -> str:
        """The gateway's answer to a client with this key."""
        gateway = self.settings().gateway
        url = f"https://{self.machine.address}:{gateway.port}/v1/models"
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    top, flavour = tmp_path_factory.mktemp("site"), FLAVOURS["two-gpus"]
    fingerprints = build_site(top / "apt")
    with Lan.create("gpu-server") as lan, serving(top / "apt", lan.gateway) as url:
        client, machine = lan.client("client"), lan.machine("gpu-server")
        dress(machine, flavour, top / "apt", url)
        with ImageRegistry(lan.gateway, top / "registry") as registry:
            data: dict[str, object] = {
                **site_data(flavour, fingerprints, url),
                "preflight_min_memory_gib": 1.0,
                "preflight_min_free_disk_gib": 3.0,
                "docker_insecure_registries": [registry.name],
                "services": ["llamacpp"],
                "llamacpp_image": push_gpu_engine(registry),
                "models": [
                    {
                        "name": "tiny",
                        "service": "llamacpp",
                        "source": str(top / "tiny.gguf"),
                        "sha256": tiny_model.write(top / "tiny.gguf"),
                        "context_tokens": 512,
                    }
                ],
                "gateway_ca_directory": str(top / "ca"),
            }
            inventory = GpuInventory.write(top, machine, data, ["test", *_CLIENTS.values()])
            key = inventory.keys["test"]
            data["api_clients"] = [{"name": "test", "sha256": digest(key)}]
            converge(machine, gpu_server, read_settings(data))
        yield Server(machine, client, data, key, inventory)


def test_completion_is_proven_to_run_on_the_gpu_of_its_service(
    server: Server, tmp_path: Path
) -> None:
    result = server.verify(tmp_path, "--evidence", str(tmp_path / "evidence"))
    assert result.returncode == 0, result.stdout
    assert "test_completion_is_computed_on_the_gpus_that_the_service_was_given" in result.stdout
    assert "GPU: 0 proven on hardware, 6 proven on a double; without" in result.stdout
    assert "not checked: 0" in result.stdout
    (kept,) = (tmp_path / "evidence").iterdir()
    assert kept.name == "595.91.07-nvidia-geforce-rtx-4090-double.txt"
    assert kept.read_text().startswith("proven on a double: driver 595.91.07, NVIDIA GeForce")


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        ("nvmlDeviceGetComputeRunningProcesses_v3 0", "it ran on the CPU"),
        ("nvmlDeviceGetComputeRunningProcesses_v3 3", "Not Supported"),
    ],
)
def test_an_engine_that_speaks_of_a_gpu_is_no_proof_without_nvml(
    server: Server, tmp_path: Path, failure: str, sentence: str
) -> None:
    server.machine.ssh(f"echo '{failure}' >/etc/llmhost-double/failures")
    try:
        result = server.verify(tmp_path, "-k", "completion or engine")
    finally:
        server.machine.ssh("rm /etc/llmhost-double/failures")
    assert result.returncode == 1 and sentence in result.stdout, result.stdout
    assert "PASSED llmhost/checks/test_gpu.py::test_engine_itself" in result.stdout


def test_memory_on_the_gpu_is_no_proof_when_the_engine_speaks_of_the_cpu(
    server: Server, tmp_path: Path
) -> None:
    on_cpu = server.settings(llamacpp_extra_arguments=["--n-gpu-layers", "0"])
    assert deploy(server.machine, run_stack, on_cpu).succeeded
    try:
        result = server.verify(tmp_path, "-k", "completion or engine")
    finally:
        assert deploy(server.machine, run_stack, server.settings()).succeeded
    assert result.returncode == 1, result.stdout
    assert "llamacpp runs on the CPU: offloaded 0/3 layers to GPU" in result.stdout
    assert "PASSED llmhost/checks/test_gpu.py::test_completion" in result.stdout


def test_a_container_whose_devices_were_cut_off_is_found_and_made_anew(
    server: Server, tmp_path: Path
) -> None:
    identify = f"docker inspect -f '{{{{.Id}}}}' {CONTAINER}"
    container = server.machine.ssh(identify).stdout.strip()
    # What a reload does to devices that systemd does not know of.
    server.machine.ssh(
        f"systemctl set-property --runtime docker-{container}.scope"
        " DevicePolicy=closed DeviceAllow="
    )
    found = server.verify(tmp_path, "-k", "devices")
    assert found.returncode == 1 and "llamacpp" in found.stdout, found.stdout
    mended = deploy(server.machine, run_stack, server.settings())
    assert mended.succeeded and "can no longer open its GPUs" in mended.output, mended.output
    assert server.machine.ssh(identify).stdout.strip() != container
    assert server.verify(tmp_path, "-k", "devices").returncode == 0
    assert deploy(server.machine, run_stack, server.settings()).changed == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"llamacpp_gpu": "GPU-00000000-0000-4000-8000-00000000dead"}, "is not on this host"),
        ({"llamacpp_gpu": None, "llamacpp_gpu_count": 3}, "asks for 3 GPU(s), and 2 of"),
        ({"vram_reserve_gib": 23.75}, "GPU 1 has 24.00 GiB, of which 0.25 GiB are available"),
    ],
)
def test_what_the_gpus_cannot_give_is_a_warning_at_first_and_then_refused(
    server: Server, changes: dict[str, object], sentence: str
) -> None:
    warned = deploy(server.machine, check_host, server.settings(**changes))
    assert warned.succeeded and sentence in warned.output, warned.output
    refused = deploy(server.machine, install_nvidia_driver, server.settings(**changes))
    assert not refused.succeeded and sentence in refused.output, refused.output


def test_a_container_that_lost_its_gpu_is_found(server: Server, tmp_path: Path) -> None:
    server.machine.ssh(f"docker rename {CONTAINER} kept && docker stop kept")
    server.machine.ssh("apt-get -qq -y install busybox-static")
    server.machine.ssh("tar -C / -c bin/busybox | docker import - box")
    label = "--label com.docker.compose.project=llmhost"
    label += " --label com.docker.compose.service=llamacpp"
    server.machine.ssh(f"docker run -d --name stray {label} box /bin/busybox sleep 600")
    try:
        result = server.verify(tmp_path, "-k", "exactly")
    finally:
        undo = f"docker rename kept {CONTAINER}; docker start {CONTAINER}"
        server.machine.ssh(f"docker rm -f stray; {undo}")
    assert result.returncode == 1 and "llamacpp" in result.stdout, result.stdout


def test_the_server_is_complete_and_verified(server: Server) -> None:
    run = server.inventory.deploy()
    assert run.returncode == 0, run.stdout + run.stderr
    assert {server.status(key) for key in server.inventory.keys.values()} == {"200"}
    verified = server.inventory.verify(server.client)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("name", FAILURES)
def test_a_key_is_revoked_while_the_gpu_fails(server: Server, name: str) -> None:
    failure, site, client = FAILURES[name], server.inventory, _CLIENTS[name]
    assert server.status(site.keys[client]) == "200"
    container = server.container()
    server.machine.ssh(failure.cause)
    try:
        with site.changed(failure.data):
            assert site.llmhost("key", "revoke", client, "FILE").returncode == 0
            planned = site.llmhost("plan", "FILE", "--json")
            run = site.deploy()
            history = site.llmhost("history", "FILE", server.machine.name, "--json")
    finally:
        server.machine.ssh(failure.undo)
    said = run.stdout + run.stderr
    assert run.returncode == 1 and failure.reported in said.rpartition("failed:")[2], said
    assert server.status(site.keys[client]) == "401"
    assert server.status(site.keys["test"]) == "200"
    assert server.container() == container
    (plan,) = json.loads(planned.stdout)["hosts"]
    assert plan["status"] == ("refused" if failure.foreseen else "drift"), plan
    assert "Gateway" in [step["component"] for step in plan["steps"]], plan
    (last,) = json.loads(history.stdout)["runs"][-1:]
    assert last["result"] == "failed", history.stdout


def test_the_server_is_complete_again_when_its_gpus_are(server: Server) -> None:
    for _ in range(2):
        run = server.inventory.deploy()
        assert run.returncode == 0, run.stdout + run.stderr
    assert "No changes" in run.stderr
