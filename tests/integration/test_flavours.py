"""Every machine flavour: the whole deploy, its rerun without a change, and every check of verify.

WSL runs by default, a GPU in test_gpu_server.py. The others take long: `script/test flavours`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.tasks.nvidia_driver import install_nvidia_driver
from testbed import Client, Lan, tiny_model
from testbed.engine import push_engine
from testbed.image_registry import ImageRegistry
from tests.doubles.apt_repository import serving
from tests.doubles.nvidia.engine import push_gpu_engine
from tests.doubles.nvidia.flavours import FLAVOURS, build_site, dress, site_data
from tests.integration.gpu_site import GpuInventory
from tests.integration.harness import deploy

pytestmark = pytest.mark.machines
_BY_DEFAULT = ("wsl",)


@dataclass(frozen=True)
class Site:
    """What all flavours have in common: a LAN, packages, an engine for CPUs and one for GPUs."""

    lan: Lan
    packages: Path
    fingerprints: dict[str, str]
    url: str
    client: Client
    engines: dict[bool, str]
    data: dict[str, object]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    top = tmp_path_factory.mktemp("site")
    fingerprints = build_site(top / "apt")
    with (
        Lan.create("flavours") as lan,
        serving(top / "apt", lan.gateway) as url,
        ImageRegistry(lan.gateway, top / "registry") as registry,
    ):
        model = {"name": "tiny", "service": "llamacpp", "context_tokens": 512}
        model |= {"source": str(top / "tiny.gguf"), "sha256": tiny_model.write(top / "tiny.gguf")}
        data: dict[str, object] = {
            "preflight_min_memory_gib": 1.0,
            "preflight_min_free_disk_gib": 3.0,
            "docker_insecure_registries": [registry.name],
            "services": ["llamacpp"],
            "models": [model],
            "gateway_ca_directory": str(top / "ca"),
        }
        engines = {False: push_engine(registry), True: push_gpu_engine(registry)}
        client = lan.client("client")
        yield Site(lan, top / "apt", fingerprints, url, client, engines, data)


# What can not be proven there, even on a double.
NOT_CHECKED = {
    "plain": "not checked: 0",
    "wsl": "NVML on WSL lists no processes",
}


def _lanes(flavour: str) -> list[pytest.MarkDecorator]:
    return [] if flavour in _BY_DEFAULT else [pytest.mark.flavours]


@pytest.mark.parametrize("flavour", [pytest.param(each, marks=_lanes(each)) for each in FLAVOURS])
def test_flavour_converges_and_is_verified(site: Site, flavour: str, tmp_path: Path) -> None:
    wanted = FLAVOURS[flavour]
    machine = site.lan.machine(f"host-{flavour.replace('.', '-')}", suite=wanted.suite)
    try:
        if wanted.has_gpu:
            dress(machine, wanted, site.packages, site.url)
        data = site.data | site_data(wanted, site.fingerprints, site.url)
        data["llamacpp_image"] = site.engines[wanted.has_gpu]
        inventory = GpuInventory.write(tmp_path, machine, data, ["test"])
        # Before there is a driver, its GPUs have no names: the plan can be made nevertheless.
        planned = inventory.llmhost("plan", "FILE", "--json")
        assert planned.returncode == 2 and "Run the declared services" in planned.stdout, planned
        first = inventory.deploy()
        assert first.returncode == 0, first.stdout + first.stderr
        again = inventory.deploy("--json")
        assert again.returncode == 0, again.stdout + again.stderr
        operations = json.loads(again.stdout)["results"]["operations"]
        assert [each["name"] for each in operations if each["success"]] == [], again.stderr
        engine = machine.ssh("docker version -f '{{.Server.Version}}'").stdout
        assert engine.startswith("28.5" if flavour == "docker-28.5" else "26.1")
        settled = inventory.llmhost("plan", "FILE")
        assert settled.returncode == 0, settled.stdout
        if not wanted.has_gpu:
            asking = read_settings(inventory.data | {"llamacpp_gpu_count": 1})
            refused = deploy(machine, install_nvidia_driver, asking)
            assert not refused.succeeded, refused.output
            assert "no NVIDIA GPU is on this host, and service 'llamacpp'" in refused.output
        result = inventory.verify(site.client)
    finally:
        machine.destroy()
    assert result.returncode == 0, result.stdout + result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("GPU: ")]
    assert line.startswith("GPU: 0 proven on hardware, "), result.stdout
    assert (", 0 proven on a double" not in line) is wanted.has_gpu, result.stdout
    assert NOT_CHECKED.get(flavour, "") in result.stdout, result.stdout
