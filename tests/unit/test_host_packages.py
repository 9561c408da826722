"""What a bundle has to bring is what the deploy installs."""

import ast
from pathlib import Path
from typing import Any

import pytest

from llmhost.docker.packages import DOCKER
from llmhost.host_packages import host_packages, host_repositories
from llmhost.inventory.reader import read_settings
from llmhost.inventory.role import APP_SERVERS
from llmhost.inventory.site import SiteHost

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/llama:1@sha256:" + "0" * 64
CLIENTS = {"api_clients": [{"name": "test", "sha256": "ab" * 32}]}
WEIGHTS = "https://models.example/tiny.gguf"
MODEL = {"name": "tiny", "source": WEIGHTS, "sha256": "cd" * 32, "context_tokens": 512}


def host(*groups: str, **options: Any) -> SiteHost:
    return SiteHost("host", read_settings(CLIENTS | options), frozenset(groups))


def names(host: SiteHost, release: str = "13") -> set[str]:
    return set(host_packages(host, "debian", release))


def labels(host: SiteHost) -> list[str]:
    found = host_repositories(host, "debian", "13", "trixie", "amd64")
    return [repository.label for repository in found]


def test_llm_server_gets_what_its_components_install() -> None:
    stack = host(services=["llamacpp"], llamacpp_image=IMAGE, models=[MODEL])
    found = names(stack)
    assert {"docker.io", "docker-cli", "docker-compose", "docker-buildx"} <= found
    assert {"nginx", "libnginx-mod-http-perl", "ufw", "curl", "nftables", "apparmor"} <= found
    assert {"unattended-upgrades", "systemd-timesyncd", "iproute2", "procps", "python3"} <= found
    assert labels(stack) == []


@pytest.mark.parametrize(
    ("options", "more", "fewer"),
    [
        ({"gateway_metrics_port": None}, set(), {"mtail"}),
        ({"system_unattended_upgrades": False}, set(), {"unattended-upgrades"}),
        ({"firewall_enabled": False}, set(), {"ufw"}),
        ({"docker_version": "26.1.5"}, {"docker.io=26.1.5"}, {"docker.io"}),
        ({"docker_source": DOCKER}, {"docker-ce", "containerd.io"}, {"docker.io"}),
    ],
)
def test_options_change_what_is_brought(
    options: dict[str, Any], more: set[str], fewer: set[str]
) -> None:
    plain, found = names(host()), names(host(**options))
    assert found - plain >= more
    assert plain - found >= fewer


def test_app_server_gets_hardly_anything() -> None:
    assert names(host(APP_SERVERS)) == {"ca-certificates"}
    addressed = host(APP_SERVERS, network_addresses=["192.0.2.7/24"], network_dns=["192.0.2.1"])
    assert names(addressed) == {"ca-certificates", "iproute2"}
    guarded = host(APP_SERVERS, app_server_firewall=True)
    assert names(guarded) == {"ca-certificates", "ufw", "procps"}


def test_gpu_needs_the_toolkit_and_further_repositories() -> None:
    gpu = host(services=["llamacpp"], llamacpp_image=IMAGE, models=[MODEL], llamacpp_gpu=0)
    assert f"nvidia-container-toolkit={gpu.settings.container_toolkit.version}" in names(gpu)
    assert labels(gpu) == ["nvidia-container-toolkit", "nvidia-driver"]
    ubuntu = host_repositories(gpu, "ubuntu", "24.04", "noble", "amd64")
    assert [each.label for each in ubuntu] == ["nvidia-container-toolkit"]


def test_docker_of_docker_comes_from_its_repository() -> None:
    (repository,) = host_repositories(host(docker_source=DOCKER), "debian", "13", "trixie", "amd64")
    assert (repository.label, repository.suite) == ("docker", "trixie")


def test_no_task_installs_packages_that_a_bundle_would_not_know_of() -> None:
    looked_at = 0
    for file in sorted((ROOT / "tasks").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "apt.packages":
                looked_at += 1
                told = [ast.unparse(argument) for argument in node.args]
                assert all(text.startswith("*host_packages.") for text in told), (file, told)
    assert looked_at >= 4
