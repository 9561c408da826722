"""The whole proof on a double: a completion through the gateway, the process that NVML lists, its
cgroup, the container of the service that was asked, and the engine's own word."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from llmhost.tasks.nvidia_driver import install_nvidia_driver
from llmhost.tasks.preflight import check_host
from llmhost.tasks.stack import run_stack
from tests.integration.gpu_failures import FAILURES
from tests.integration.gpu_site import CONTAINER, GpuServer, gpu_machine, gpu_server
from tests.integration.harness import deploy
from tests.integration.outage import late_spec, restarted, wait_for_answer

pytestmark = pytest.mark.machines
_CLIENTS = {name: f"client-{number}" for number, name in enumerate(FAILURES)}
"""A client for each failure, whose key is revoked meanwhile."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuServer]:
    """Two GPUs, of which the service asks for the second by UUID."""
    top = tmp_path_factory.mktemp("site")
    with gpu_machine(top, "two-gpus", clients=[*_CLIENTS.values()]) as server:
        yield server


def test_completion_is_proven_to_run_on_the_gpu_of_its_service(
    server: GpuServer, tmp_path: Path
) -> None:
    result = server.verify(tmp_path, "--evidence", str(tmp_path / "evidence"))
    assert result.returncode == 0, result.stdout
    assert "test_completion_is_computed_on_the_gpus_of_its_service" in result.stdout
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
        ("nvmlDeviceGetProcessUtilization 0", "did no work"),
    ],
)
def test_an_engine_that_speaks_of_a_gpu_is_no_proof_without_nvml(
    server: GpuServer, tmp_path: Path, failure: str, sentence: str
) -> None:
    server.machine.ssh(f"echo '{failure}' >/etc/llmhost-double/failures")
    try:
        result = server.verify(tmp_path, "-k", "completion or engine")
    finally:
        server.machine.ssh("rm /etc/llmhost-double/failures")
    assert result.returncode == 1 and sentence in result.stdout, result.stdout
    assert "PASSED llmhost/checks/test_gpu.py::test_engine_reports_" in result.stdout


def test_memory_on_the_gpu_is_no_proof_when_the_engine_speaks_of_the_cpu(
    server: GpuServer, tmp_path: Path
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


def test_changed_service_is_replaced_while_a_second_one_has_the_gpu(server: GpuServer) -> None:
    """nvidia-smi, on the host, says how much memory is free."""
    with_two = deploy(server.machine, run_stack, server.settings(llamacpp_threads=1))
    assert with_two.succeeded, with_two.output
    assert "a second container answers for service llamacpp" in with_two.output
    with ThreadPoolExecutor() as pool:
        back = pool.submit(deploy, server.machine, run_stack, server.settings())
        seen = "docker ps --format '{{.Names}}' --filter name=-beside --filter health=healthy"
        server.machine.ssh(f"until {seen} | grep .; do sleep 0.1; done", timeout=120)
        assert back.result().succeeded
    assert server.machine.ssh("docker ps --format '{{.Names}}'").stdout.split() == [CONTAINER]


def test_service_is_interrupted_where_the_gpu_has_memory_for_one(server: GpuServer) -> None:
    declared = cast(list[dict[str, object]], server.data["models"])
    models = [{**model, "vram_gib": 20.0} for model in declared]
    large = server.settings(models=models, llamacpp_threads=1)
    outcome = deploy(server.machine, run_stack, large)
    assert "interrupted until" in outcome.output, outcome.output
    assert "a second container needs 20.00 GiB of GPU 1" in outcome.output, outcome.output
    assert deploy(server.machine, run_stack, server.settings()).succeeded


def test_service_is_interrupted_where_another_program_has_the_memory(server: GpuServer) -> None:
    """The ledger knows nothing of it, but nvidia-smi does."""
    identify = f"docker inspect -f '{{{{.Id}}}}' {CONTAINER}"
    before = server.machine.ssh(f"{identify}; date +%s").stdout.split()
    server.machine.ssh("echo 1 >/run/llmhost-double/1.free")
    try:
        outcome = deploy(server.machine, run_stack, server.settings(llamacpp_threads=1))
    finally:
        server.machine.ssh("rm /run/llmhost-double/1.free")
    assert outcome.succeeded, outcome.output
    assert "is interrupted: 1 MiB of GPU GPU-" in outcome.output, outcome.output
    events = f"docker events --since {before[1]} --until 0s --filter event=create"
    names = server.machine.ssh(f"{events} --format '{{{{.Actor.Attributes.name}}}}'").stdout
    assert CONTAINER in names and "beside" not in names, names
    assert server.machine.ssh(identify).stdout.strip() != before[0]
    assert deploy(server.machine, run_stack, server.settings()).succeeded


def test_a_container_whose_devices_were_cut_off_is_found_and_made_anew(
    server: GpuServer, tmp_path: Path
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


def test_nvidia_smi_that_fails_in_a_container_is_found(server: GpuServer, tmp_path: Path) -> None:
    only = ("llmhost/checks/test_container_toolkit.py", "-k", "throwaway")
    before = server.verify(tmp_path, *only)
    assert before.returncode == 0, before.stdout
    program = "/usr/lib/llmhost-double/bin/nvidia-smi"
    server.machine.ssh(f"mv {program} {program}.kept; cp -p /usr/bin/false {program}")
    try:
        found = server.verify(tmp_path, *only)
    finally:
        server.machine.ssh(f"mv {program}.kept {program}")
    assert found.returncode == 1 and "1 failed" in found.stdout, found.stdout


@pytest.mark.reboots
def test_service_answers_after_a_reboot_with_a_late_spec(server: GpuServer) -> None:
    restarted(server.machine, "reboot", late=True)
    late_spec(server.machine)
    wait_for_answer(server)


@pytest.mark.reboots
def test_service_that_an_operator_stopped_stays_so_until_it_is_started(
    server: GpuServer, tmp_path: Path
) -> None:
    llmhost, machine = server.inventory.llmhost, server.machine
    running = f"docker ps --quiet --filter name={CONTAINER}"
    stopped = llmhost("stop", "llamacpp", "FILE")
    assert stopped.returncode == 0, stopped.stderr
    machine.reboot()
    machine.ssh("systemctl start llmhost-heal.service")
    mark = machine.ssh("cat /opt/llmhost/stopped/llamacpp").stdout.strip()
    deployed = deploy(machine, gpu_server, server.settings(llamacpp_threads=1))
    assert deployed.succeeded and f"service llamacpp was {mark}" in deployed.output, deployed.output
    planned = llmhost("plan", "FILE")
    assert f"service llamacpp was {mark}" in " ".join(planned.stdout.split()), planned.stdout
    checked = server.verify(tmp_path, "llmhost/checks/test_stack.py", "llmhost/checks/services")
    assert checked.returncode == 0, checked.stdout
    assert f"not checked: the service llamacpp was {mark}" in checked.stdout, checked.stdout
    refused = llmhost("restart", "llamacpp", "FILE")
    assert refused.returncode == 1 and mark in refused.stderr, refused.stderr
    assert machine.ssh(running).stdout == ""
    started = llmhost("start", "llamacpp", "FILE")
    assert started.returncode == 0, started.stderr
    wait_for_answer(server)
    assert deploy(machine, gpu_server, server.settings()).succeeded


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"llamacpp_gpu": "GPU-00000000-0000-4000-8000-00000000dead"}, "is not on this host"),
        ({"llamacpp_gpu": None, "llamacpp_gpu_count": 3}, "asks for 3 GPUs, and 2 of"),
        ({"vram_reserve_gib": 23.75}, "GPU 1 has 24.00 GiB, of which 0.25 GiB are available"),
    ],
)
def test_what_the_gpus_cannot_give_is_a_warning_at_first_and_then_refused(
    server: GpuServer, changes: dict[str, object], sentence: str
) -> None:
    warned = deploy(server.machine, check_host, server.settings(**changes))
    assert warned.succeeded and sentence in warned.output, warned.output
    refused = deploy(server.machine, install_nvidia_driver, server.settings(**changes))
    assert not refused.succeeded and sentence in refused.output, refused.output


def test_a_container_that_lost_its_gpu_is_found(server: GpuServer, tmp_path: Path) -> None:
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


def test_the_server_is_complete_and_verified(server: GpuServer) -> None:
    run = server.inventory.deploy()
    assert run.returncode == 0, run.stdout + run.stderr
    assert {server.status(key) for key in server.inventory.keys.values()} == {"200"}
    verified = server.inventory.verify(server.client)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("name", FAILURES)
def test_a_key_is_revoked_while_the_gpu_fails(server: GpuServer, name: str) -> None:
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


def test_the_server_is_complete_again_when_its_gpus_are(server: GpuServer) -> None:
    for _ in range(2):
        run = server.inventory.deploy()
        assert run.returncode == 0, run.stdout + run.stderr
    assert "No changes" in run.stderr
