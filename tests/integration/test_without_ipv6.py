"""A server whose kernel is booted with ipv6.disable=1: its firewall, gateway and egress."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.tasks.docker import install_docker
from llmhost.tasks.egress import limit_egress
from llmhost.tasks.firewall import guard_host
from llmhost.tasks.gateway import configure_gateway
from testbed import Lan, Machine
from testbed.vm import VirtualMachine
from tests.integration.harness import converge, deploy

pytestmark = [pytest.mark.machines, pytest.mark.vm]

OPTIONS = {
    "gateway_addresses": ["0.0.0.0"],
    "gateway_tls": "off",
    "api_clients": [{"name": "test", "sha256": "ab" * 32}],
    "services": ["llamacpp"],
    "llamacpp_image": "registry.example/engine@sha256:" + "ab" * 32,
    "models": [{"name": "tiny", "source": "https://example.com/tiny.gguf", "sha256": "ab" * 32}],
    "stack_egress": "deny",
}
CHECKS = ("test_firewall.py", "test_docker.py")


def _configure(options: dict[str, object]) -> None:
    """What of a deploy has to do with addresses, without the containers."""
    settings = read_settings(options)
    limit_egress(settings)
    install_docker(settings)
    guard_host(settings)
    configure_gateway(settings)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with Lan.create("no-ipv6") as lan:
        yield lan


@pytest.fixture(scope="module")
def host(lan: Lan) -> Machine:
    machine = lan.machine("server", kind="vm")
    assert isinstance(machine, VirtualMachine)
    machine.stop()
    machine.kernel_options = "ipv6.disable=1"
    machine.start()
    assert machine.ssh("test -e /proc/net/if_inet6", check=False).returncode
    return machine


def test_server_is_deployed_and_comes_back_after_a_reboot(host: Machine) -> None:
    converge(host, _configure, OPTIONS)
    host.reboot()  # fails if a unit does
    planned = deploy(host, _configure, OPTIONS, dry=True)
    assert planned.succeeded and planned.changed == [], planned.output
    host.ssh("systemctl is-active ufw nginx docker; nft list table inet llmhost_egress")


def test_checks_of_the_server_pass(lan: Lan, host: Machine, tmp_path: Path) -> None:
    client = lan.client("client")
    site = tmp_path / "site.json"
    data = OPTIONS | {"ssh_config_file": str(host.ssh_config)}
    site.write_text(json.dumps({host.name: data}))
    checks = [f"llmhost/checks/{name}" for name in CHECKS]
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *checks]
    command += ["--site", str(site), "--outside", shlex.join(client.command([]))]
    found = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert found.returncode == 0, found.stdout
