"""Every machine flavour: the whole deploy, its rerun without a change, and the proof on the double.

A machine each, which takes long: `script/test flavours`.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.inventory.reader import read_settings
from llmhost.tasks.nvidia_driver import install_nvidia_driver
from testbed import Lan, tiny_model
from testbed.engine import push_engine
from testbed.image_registry import ImageRegistry
from tests.doubles.apt_repository import serving
from tests.doubles.nvidia.engine import push_gpu_engine
from tests.doubles.nvidia.flavours import FLAVOURS, build_site, dress, site_data
from tests.integration.gpu_site import gpu_server
from tests.integration.harness import converge, deploy

pytestmark = [pytest.mark.machines, pytest.mark.flavours]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Site:
    """What all flavours have in common: a LAN, packages, an engine for CPUs and one for GPUs."""

    lan: Lan
    packages: Path
    fingerprints: dict[str, str]
    url: str
    key: str
    engines: dict[bool, str]
    data: dict[str, object]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    top, key = tmp_path_factory.mktemp("site"), new_key()
    fingerprints = build_site(top / "apt")
    with (
        Lan.create("flavours") as lan,
        serving(top / "apt", lan.gateway) as url,
        ImageRegistry(lan.gateway, top / "registry") as registry,
    ):
        lan.client("client")
        model = {"name": "tiny", "service": "llamacpp", "context_tokens": 512}
        model |= {"source": str(top / "tiny.gguf"), "sha256": tiny_model.write(top / "tiny.gguf")}
        data: dict[str, object] = {
            "preflight_min_memory_gib": 1.0,
            "preflight_min_free_disk_gib": 3.0,
            "docker_insecure_registries": [registry.name],
            "services": ["llamacpp"],
            "models": [model],
            "api_clients": [{"name": "test", "sha256": digest(key)}],
        }
        engines = {False: push_engine(registry), True: push_gpu_engine(registry)}
        yield Site(lan, top / "apt", fingerprints, url, key, engines, data)


# What can not be proven there, even on a double.
NOT_CHECKED = {
    "plain": "this server has no NVIDIA GPU",
    "wsl": "NVML on WSL lists no processes",
}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_flavour_converges_and_is_proven(site: Site, flavour: str, tmp_path: Path) -> None:
    wanted = FLAVOURS[flavour]
    machine = site.lan.machine(f"host-{flavour.replace('.', '-')}")
    try:
        if wanted.has_gpu:
            dress(machine, wanted, site.packages, site.url)
        data = site.data | site_data(wanted, site.fingerprints, site.url)
        data["llamacpp_image"] = site.engines[wanted.has_gpu]
        # Before there is a driver, its GPUs have no names: the plan can be made nevertheless.
        planned = deploy(machine, gpu_server, read_settings(data), dry=True)
        assert planned.succeeded and planned.changed[-1].endswith("services"), planned.output
        assert converge(machine, gpu_server, read_settings(data)).changed
        if not wanted.has_gpu:
            asking = read_settings(data | {"llamacpp_gpu_count": 1})
            refused = deploy(machine, install_nvidia_driver, asking)
            assert not refused.succeeded, refused.output
            assert "no NVIDIA GPU is on this host, and service 'llamacpp'" in refused.output
        place = tmp_path / "site.json"
        config = {"ssh_config_file": str(machine.ssh_config)}
        place.write_text(json.dumps({machine.name: data | config}))
        result = verify(place, shlex.join(site.lan.clients["client"].command([])), site.key)
    finally:
        machine.destroy()
    assert result.returncode == 0, result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("GPU: ")]
    assert line.startswith("GPU: 0 proven on hardware, "), result.stdout
    assert (", 0 proven on a double" not in line) is wanted.has_gpu, result.stdout
    assert NOT_CHECKED.get(flavour, "") in result.stdout, result.stdout


def verify(site: Path, outside: str, key: str) -> "subprocess.CompletedProcess[str]":
    """The server tests of everything NVIDIA, as `llmhost verify` runs them."""
    tests = [f"llmhost/checks/test_{name}.py" for name in ("nvidia_driver", "container_toolkit")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    command += ["llmhost/checks/test_gpu.py", "--site", str(site), "--outside", outside]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "LLMHOST_API_KEY": key},
        capture_output=True,
        text=True,
        check=False,
    )
