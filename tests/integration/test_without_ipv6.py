"""A gateway on a kernel that really has no IPv6: refused, deployed, verified."""

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
from testbed import Client, Lan, Machine
from tests.integration.test_gateways_group import DOUBLE

pytestmark = [pytest.mark.machines, pytest.mark.vm]
ROOT = Path(__file__).parents[2]
SERVER, CLOSED = 9001, 9002


@dataclass(frozen=True)
class Site:
    """An inventory with one gateway, whose server is a double on the same machine."""

    place: Path
    machine: Machine
    client: Client
    key: str
    upstream_key: str

    def run(
        self, program: str, *arguments: str, **options: object
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program with the inventory as its first argument; `options` are added to it."""
        data = {
            "gateway_upstreams": [{"name": "llm", "address": "127.0.0.1", "port": SERVER}],
            "gateway_upstream_services": ["llamacpp"],
            "gateway_upstream_key": "env:GATEWAY_KEY",
            "gateway_upstream_tls": "off",
            "gateway_ca_directory": str(self.place / "ca"),
            "api_clients": [{"name": "app", "sha256": digest(self.key)}],
            "system_hardening": "off",
            "system_unattended_upgrades": False,
            **options,
        }
        host = (self.machine.name, {"ssh_config_file": str(self.machine.ssh_config)})
        (self.place / "site.py").write_text(f"gateways = ([{host!r}], {data!r})\n")
        executable = str(Path(sys.executable).with_name(program))
        words = {"pyinfra": [], "llmhost": [arguments[0]]}[program]
        command = [executable, *words, str(self.place / "site.py"), *arguments[len(words) :]]
        env = os.environ | {"GATEWAY_KEY": self.upstream_key, "LLMHOST_API_KEY": self.key}
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1200
        )

    def deploy(self, *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
        return self.run("pyinfra", "deploy.py", "-y", *words, **options)


ON_IPV4 = {"gateway_addresses": ["0.0.0.0"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Lan.create("without-ipv6") as lan:
        machine = lan.machine("gate", kind="vm", kernel_options="ipv6.disable=1")
        machine.ssh(f"systemd-run -q --unit=llm python3 -c {shlex.quote(DOUBLE)} llm {SERVER}")
        place = tmp_path_factory.mktemp("without-ipv6")
        yield Site(place, machine, lan.client("outside"), new_key(), new_key())


def test_kernel_has_no_ipv6_and_the_default_addresses_are_refused(site: Site) -> None:
    assert site.machine.ssh("test -e /proc/sys/net/ipv6", check=False).returncode == 1
    outcome = site.deploy()
    assert outcome.returncode != 0
    said = outcome.stdout + outcome.stderr
    assert "gateway_addresses has ::; set gateway_addresses = ['0.0.0.0']" in said
    assert site.machine.ssh("command -v nginx", check=False).returncode != 0


def test_host_is_deployed_over_ipv4_and_a_rerun_changes_nothing(site: Site) -> None:
    outcome = site.deploy(**ON_IPV4)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert site.machine.ssh("systemctl is-active nginx ufw").stdout.split() == ["active"] * 2
    again = site.deploy("--json", **ON_IPV4)
    assert again.returncode == 0, again.stdout + again.stderr
    operations = json.loads(again.stdout)["results"]["operations"]
    assert [each["name"] for each in operations if each["success"]] == []


def test_verify_knows_such_a_kernel(site: Site) -> None:
    outside = shlex.join(site.client.command([]))
    checks = ("--", "-q", "-rs", "-k", "test_firewall or test_gateway")
    outcome = site.run("llmhost", "verify", "--outside", outside, *checks, **ON_IPV4)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "test_gateway.py" not in outcome.stdout, "a check of the gateway was skipped"


def test_firewall_and_gateway_come_back_after_a_reboot(site: Site) -> None:
    site.machine.reboot()
    assert site.machine.ssh("systemctl is-active nginx ufw").stdout.split() == ["active"] * 2
    assert "-P INPUT DROP" in site.machine.ssh("iptables -S").stdout
    site.machine.ssh(f"systemd-run -q --unit=closed python3 -m http.server {CLOSED}")
    site.machine.ssh(f"timeout 60 sh -c 'until curl -s 127.0.0.1:{CLOSED}; do sleep 1; done'")
    address = site.machine.address
    for url, status in {f"https://{address}:8080": 0, f"http://{address}:{CLOSED}": 28}.items():
        command = ["curl", "-sk", "-m", "30", url]
        assert site.client.run(command, check=False).returncode == status, url
