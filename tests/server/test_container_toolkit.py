"""The container toolkit: its versions, its packages and its CDI specs."""

import json
from typing import Any

import pytest
import yaml

from llmhost.checks.command_log import unit
from llmhost.checks.nvidia import Nvidia, look, note, require_gpu
from llmhost.settings import Settings

PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


@pytest.fixture(scope="module")
def nvidia(host: Any, settings: Settings) -> Nvidia:
    found = look(host, settings)
    require_gpu(found, settings)
    return found


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


def test_cdi_describes_just_the_gpus_that_are_there(host: Any, nvidia: Nvidia) -> None:
    specs = host.run("cat /etc/cdi/nvidia.yaml /var/run/cdi/nvidia.yaml 2>/dev/null").stdout
    names = {
        str(device["name"])
        for spec in yaml.safe_load_all(specs)
        if spec and spec["kind"] == "nvidia.com/gpu"
        for device in spec["devices"]
    }
    assert "all" in names
    if not nvidia.wsl:
        described = {name for name in names if name.startswith("GPU-")}
        assert described == {gpu["uuid"] for gpu in nvidia.gpus}


def test_specs_are_kept_fresh(host: Any) -> None:
    assert unit(host, "nvidia-cdi-refresh.path") == "active, enabled"


def test_docker_knows_the_runtime_and_does_not_use_it_by_default(host: Any) -> None:
    info = json.loads(host.run("docker info --format '{{json .}}'").stdout)
    assert "nvidia" in info["Runtimes"]
    assert info["DefaultRuntime"] != "nvidia"
    assert any("cdi" in directory for directory in info["CDISpecDirs"])
