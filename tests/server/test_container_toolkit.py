"""The container toolkit: its versions, its packages and its CDI specs."""

import json
from typing import Any

import pytest
import yaml

from llmhost.checks.applies import does_not_apply
from llmhost.checks.command_log import unit
from llmhost.checks.nvidia import Nvidia, note, require_gpu
from llmhost.nvidia.gpu_allocation import KIND
from llmhost.settings import Settings

PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


@pytest.fixture(scope="module")
def nvidia(hardware: Nvidia, settings: Settings) -> Nvidia:
    require_gpu(hardware, settings)
    return hardware


@pytest.fixture(autouse=True)
def _proof(nvidia: Nvidia, request: pytest.FixtureRequest) -> None:
    note(request, nvidia)


def test_all_four_packages_have_the_declared_version_and_are_held(
    host: Any, settings: Settings
) -> None:
    query = "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n' " + " ".join(PACKAGES)
    rows = [line.split() for line in host.run(query).stdout.splitlines()]
    version = settings.container_toolkit.version
    assert sorted(rows) == sorted(["hi", name, version] for name in PACKAGES)


def test_apt_knows_the_toolkits_repository_once(host: Any, settings: Settings) -> None:
    names = ["libnvidia-container", "nvidia-docker", settings.container_toolkit.repository_url]
    patterns = " ".join(f"-e '{name}'" for name in names)
    found = host.run(f"grep -rlF {patterns} /etc/apt/sources.list.d").stdout.split()
    assert found == ["/etc/apt/sources.list.d/nvidia-container-toolkit.sources"]


def refreshed(host: Any) -> dict[str, Any]:
    """The spec of the toolkit's own units: CDI takes it before what is in /etc/cdi."""
    found: dict[str, Any] = yaml.safe_load(host.check_output("cat /var/run/cdi/nvidia.yaml"))
    return found


def test_cdi_describes_exactly_the_installed_gpus(host: Any, nvidia: Nvidia) -> None:
    spec = refreshed(host)
    names = {str(device["name"]) for device in spec["devices"]}
    assert spec["kind"] == "nvidia.com/gpu"
    assert "all" in names
    if not nvidia.wsl:
        described = {name for name in names if name.startswith("GPU-")}
        assert described == {gpu["uuid"] for gpu in nvidia.gpus}


def test_devices_and_files_of_cdi_exist_and_suffice_for_cuda(host: Any, nvidia: Nvidia) -> None:
    spec = refreshed(host)
    edits = [spec.get("containerEdits") or {}]
    edits += [device.get("containerEdits") or {} for device in spec["devices"]]
    nodes = {str(node["path"]) for each in edits for node in each.get("deviceNodes") or []}
    files = {str(mount["hostPath"]) for each in edits for mount in each.get("mounts") or []}
    hooks = {str(hook["path"]) for each in edits for hook in each.get("hooks") or []}
    gone = [path for path in sorted(nodes | files | hooks) if not host.file(path).exists]
    assert gone == []
    if not nvidia.wsl:
        assert "/dev/nvidia-uvm" in nodes


def test_nvidia_smi_runs_in_a_throwaway_container(
    host: Any, settings: Settings, nvidia: Nvidia
) -> None:
    """In the image of a service with a GPU, which is on the host: nothing is pulled."""
    wanted = " ".join(f"--filter 'reference=llmhost/{name}:*'" for name in settings.gpu_requests)
    if not wanted:
        does_not_apply("no service asks for a GPU")
    images = host.check_output(f"docker image ls --quiet --no-trunc {wanted}").split()
    if not images:
        pytest.skip("not checked: no image of a service with a GPU is on this server")
    said = host.run(
        "docker run --rm --pull never --network none --read-only --cap-drop ALL --user 65534:65534"
        f" --device {KIND}=all --entrypoint nvidia-smi {images[0]}"
        " --query-gpu=uuid,driver_version --format=csv,noheader,nounits"
    )
    assert said.rc == 0, said.stdout + said.stderr
    rows = sorted(tuple(line.split(", ")) for line in said.stdout.splitlines())
    assert rows == sorted((gpu["uuid"], nvidia.nvml["driver"]) for gpu in nvidia.gpus)


def test_cdi_specs_are_refreshed(host: Any) -> None:
    assert unit(host, "nvidia-cdi-refresh.path") == "active, enabled"


def test_docker_starts_after_the_specs_or_after_a_limited_wait(host: Any) -> None:
    refresh = "nvidia-cdi-refresh.service"
    assert refresh in host.check_output("systemctl show docker.service -P After").split()
    assert unit(host, refresh).endswith("enabled")
    assert host.check_output(f"systemctl show {refresh} -P JobRunningTimeoutUSec") != "infinity"


def test_no_unit_was_left_out_because_of_an_ordering_cycle(host: Any) -> None:
    """systemd breaks a cycle by not starting one of its units."""
    cycles = host.run("journalctl --boot --quiet --output=cat _PID=1 --grep='ordering cycle'")
    assert cycles.stdout == ""


def test_docker_knows_the_runtime_and_does_not_use_it_by_default(host: Any) -> None:
    info = json.loads(host.run("docker info --format '{{json .}}'").stdout)
    assert "nvidia" in info["Runtimes"]
    assert info["DefaultRuntime"] != "nvidia"
    assert any("cdi" in directory for directory in info["CDISpecDirs"])
