"""`llmhost verify --offline` on a real machine: who is quiet passes, who is not is named."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmhost.tasks.stack import run_stack
from llmhost.verify.offline import TABLE, cut_script, restore_script
from testbed import Lan, Machine
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.harness import deploy

pytestmark = pytest.mark.machines


@dataclass(frozen=True)
class Site:
    """A machine with a running stack, and an inventory that describes it."""

    docker: DockerSite
    inventory: Path

    @property
    def machine(self) -> Machine:
        return self.docker.machine

    def verify(self) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "llmhost.cli", "verify", str(self.inventory), "--offline"]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def reaches_out(self) -> bool:
        registry = f"curl -s -m 3 -o /dev/null http://{self.docker.registry.name}/v2/"
        return self.machine.ssh(registry, check=False).returncode == 0

    def is_cut(self) -> bool:
        return self.machine.ssh(f"nft list table inet {TABLE}", check=False).returncode == 0


@pytest.fixture(scope="module")
def site(lan: Lan, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with docker_site(lan, machine, directory) as docker:
        outcome = deploy(machine, run_stack, docker.settings())
        assert outcome.succeeded, outcome.output
        data = docker.data() | {"ssh_config_file": str(machine.ssh_config)}
        inventory = directory / "inventory.py"
        inventory.write_text(f"servers = [({machine.name!r}, {data!r})]\n")
        yield Site(docker, inventory)
        machine.ssh(f"docker rm -f chatty asker; {restore_script()}")


def test_quiet_service_passes_with_new_containers(site: Site) -> None:
    shown = "docker inspect --format '{{.Id}}' llmhost-llamacpp-1"
    before = site.machine.ssh(shown).stdout
    verified = site.verify()
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "passed: llamacpp: POST /v1/completions" in verified.stdout
    assert "no container tried to connect out" in verified.stdout
    assert site.machine.ssh(shown).stdout != before
    assert not site.is_cut() and site.reaches_out()
    # As it was declared: nothing is left for a deploy to do.
    assert deploy(site.machine, run_stack, site.docker.settings(), dry=True).changed == []


def test_container_that_tries_to_get_out_is_named(site: Site) -> None:
    call = "docker run --detach --network llmhost_default --entrypoint curl"
    # A request a second, whatever becomes of the one before; curl remembers names.
    urls = {
        "chatty": "http://203.0.113.7:8443/[1-9999]",
        "asker": "http://host[1-9999].updates.example/",
    }
    for name, url in urls.items():
        options = f"--silent --output /dev/null --max-time 2 --rate 60/m '{url}'"
        site.machine.ssh(f"{call} --name {name} {site.docker.engine} {options}")
    verified = site.verify()
    assert verified.returncode == 1, verified.stdout + verified.stderr
    assert "failed: chatty tried to reach 203.0.113.7:8443 (tcp)" in verified.stdout
    assert "failed: asker sent a DNS query to " in verified.stdout
    assert "llmhost-llamacpp-1 tried" not in verified.stdout
    assert not site.is_cut() and site.reaches_out()


def test_cut_ends_by_itself_when_the_controller_is_gone(site: Site) -> None:
    controller = site.machine.ssh('echo "${SSH_CONNECTION%% *}"').stdout.strip()
    site.machine.ssh(cut_script(controller, 22, 6))
    # A new connection comes in, nothing goes out.
    assert site.is_cut() and not site.reaches_out()
    deadline = time.monotonic() + 20
    while site.is_cut():
        assert time.monotonic() < deadline, "the cut outlives its time"
        time.sleep(0.5)
    assert site.reaches_out()
