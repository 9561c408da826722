"""An application server: a bare machine is prepared, calls the gateway, and keeps its secret.

The gateway is the real nginx with a double of an engine behind it, on the controller, which is a
host of the machine's LAN. One machine serves all tests, in the order of the file.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest, new_key
from testbed import Lan, Machine
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway

pytestmark = pytest.mark.machines
ROOT = Path(__file__).parents[2]
KEY, SECOND = new_key(), new_key()
ENVIRONMENT = "/etc/llmhost/llm.env"
INVENTORY = """\
import json
from pathlib import Path

_site = json.loads(Path(__file__).with_name("site.json").read_text())
llm_servers = [("llm", _site["llm"])]
app_servers = [("app", _site["app"])]
"""


@dataclass
class Site:
    """An inventory of an LLM server, which is never deployed, and an application server."""

    directory: Path
    machine: Machine
    gateway: LocalGateway
    llm: dict[str, Any]
    app: dict[str, Any]

    def write(self, key: str = KEY) -> None:
        (self.directory / "key").write_text(f"{key}\n")
        (self.directory / "inventory.py").write_text(INVENTORY)
        site = json.dumps({"llm": self.llm, "app": self.app})
        (self.directory / "site.json").write_text(site)

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a program on the inventory; whatever it says, it never tells a key."""
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert KEY not in done.stdout + done.stderr and SECOND not in done.stdout + done.stderr
        return done

    def llmhost(self, command: str, *options: str) -> "subprocess.CompletedProcess[str]":
        inventory = str(self.directory / "inventory.py")
        return self.run("llmhost", command, inventory, "--limit", "app", *options)

    def deploy(self, *options: str) -> "subprocess.CompletedProcess[str]":
        inventory = str(self.directory / "inventory.py")
        limit = ("--limit", "app", *options)
        return self.run("pyinfra", inventory, str(ROOT / "deploy.py"), "-y", *limit)

    def changed(self) -> list[str]:
        done = self.deploy("--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)["results"]["operations"]
        assert len(report) > 3
        return [operation["name"] for operation in report if operation["success"]]

    def ask(self, header: str) -> str:
        """Status of the models' route, as a program with the environment gets it."""
        return self.machine.ssh(
            f"set -a; . {ENVIRONMENT}; curl -sS -m 20 -o /dev/null -w '%{{http_code}}'"
            f' -H "{header}" $OPENAI_BASE_URL/models'
        ).stdout


@pytest.fixture(scope="module")
def site(lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("app-server")
    engine_port, port, status_port = free_ports(3)
    llm = {
        "ssh_hostname": lan.gateway,
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": engine_port,
        "gateway_port": port,
        "gateway_status_port": status_port,
        "gateway_addresses": [lan.gateway],
        "gateway_names": ["llm-server"],
        "gateway_ca_directory": str(directory / "ca"),
        "api_clients": [
            {"name": "app", "sha256": digest(KEY)},
            {"name": "app-2", "sha256": digest(SECOND)},
        ],
    }
    machine = lan.machine("app")
    machine.ssh("useradd --system app")
    app = {
        "ssh_config_file": str(machine.ssh_config),
        "app_server_api_key": f"file:{directory / 'key'}",
        "app_server_environment_owner": "app",
    }
    options = {key: value for key, value in llm.items() if not key.startswith("ssh_")}
    with Engine(engine_port), local_gateway(options, directory / "nginx") as gateway:
        site = Site(directory, machine, gateway, llm, app)
        site.write()
        yield site
    machine.destroy()


@pytest.fixture(scope="module")
def prepared(site: Site) -> Site:
    """After the first deploy."""
    plan = site.llmhost("plan", "--json")
    assert plan.returncode == 2, plan.stdout + plan.stderr
    (host,) = json.loads(plan.stdout)["hosts"]
    assert [step["component"] for step in host["steps"]] == ["Application server"] * 3
    done = site.deploy("-vv")  # prints every command
    assert done.returncode == 0, done.stderr
    return site


def test_second_run_and_plan_find_nothing_to_do(prepared: Site) -> None:
    assert prepared.changed() == []
    plan = prepared.llmhost("plan")
    assert plan.returncode == 0, plan.stdout


def test_programs_reach_the_gateway_by_name_and_with_the_key_only(prepared: Site) -> None:
    assert prepared.ask("Authorization: $OLLAMA_AUTH_HEADER") == "200"
    assert prepared.ask("Authorization: Bearer $OPENAI_API_KEY") == "200"
    assert prepared.ask("X-Nothing: 1") == "401"


def test_system_itself_trusts_the_gateway(prepared: Site) -> None:
    url = f"https://llm-server:{prepared.llm['gateway_port']}/health"
    found = prepared.machine.ssh(f"curl -sS -o /dev/null -w '%{{http_code}}' {url}").stdout
    assert found == "401"  # the certificate was good, or there would be no answer
    other = f"https://localhost:{prepared.llm['gateway_port']}/"
    lost = f"curl -sS --connect-to ::{prepared.llm['ssh_hostname']}: {other}"
    assert prepared.machine.ssh(lost, check=False).returncode in (35, 60)


def test_environment_is_its_owners_alone(prepared: Site) -> None:
    shown = prepared.machine.ssh(f"stat -c '%U %a' {ENVIRONMENT}").stdout
    assert shown == "app 600\n"
    for user, may in (("app", True), ("nobody", False)):
        read = f"setpriv --reuid={user} --clear-groups cat {ENVIRONMENT} >/dev/null"
        assert (prepared.machine.ssh(read, check=False).returncode == 0) is may


def test_nothing_else_of_the_host_was_touched(prepared: Site) -> None:
    left = "/etc/sysctl.d/60-llmhost.conf /etc/apt/apt.conf.d/zz-llmhost"
    assert prepared.machine.ssh(f"ls -d {left} 2>/dev/null || true").stdout == ""


def test_rotated_key_is_named_and_not_shown(prepared: Site) -> None:
    prepared.write(SECOND)
    plan = prepared.llmhost("plan", "--json")
    assert plan.returncode == 2
    (step,) = json.loads(plan.stdout)["hosts"][0]["steps"]
    assert step["reasons"] == [
        f"OLLAMA_AUTH_HEADER in {ENVIRONMENT} has another value",
        f"OPENAI_API_KEY in {ENVIRONMENT} has another value",
    ]
    assert len(prepared.changed()) == 1
    assert prepared.machine.ssh(f"grep -c {SECOND} {ENVIRONMENT}").stdout == "2\n"
    assert prepared.changed() == []


def test_drift_is_named_and_corrected(prepared: Site) -> None:
    drifts = {
        f"chmod 0644 {ENVIRONMENT}": "has mode 0644",
        "sed -i /llm-server/d /etc/hosts": "/etc/hosts lacks llm-server",
        "rm /etc/ssl/certs/*": "ca-certificates.crt does not contain",
    }
    prepared.machine.ssh("; ".join(drifts))
    plan = prepared.llmhost("plan")
    assert plan.returncode == 2 and all(sign in plan.stdout for sign in drifts.values()), plan
    assert len(prepared.changed()) == 3
    assert prepared.ask("Authorization: $OLLAMA_AUTH_HEADER") == "200"


def test_latency_is_measured_from_there(prepared: Site) -> None:
    asked = ("--requests", "5", "--tokens", "8")
    shown = prepared.llmhost("latency", *asked)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "app, m: 5 answers, 40 tokens" in shown.stdout
    told = prepared.llmhost("latency", "--json", *asked)
    (host,) = json.loads(told.stdout)["hosts"]
    assert (host["host"], host["requests"], host["tokens"]) == ("app", 5, 40)
    measures = host["measures"]
    assert 0 < measures["round_trip_seconds"]["p50"] <= measures["round_trip_seconds"]["p95"] < 1
    # The double sends a token every 50 ms.
    assert 10 < measures["tokens_per_second"]["p50"] < 21
    assert measures["total_seconds"]["p50"] > 7 * 0.05


def test_latency_without_a_measure_is_a_sentence(prepared: Site) -> None:
    faults = {
        f"sed -i 's/^OPENAI_API_KEY=.*/OPENAI_API_KEY=wrong/' {ENVIRONMENT}": "401 key_unknown",
        "rm /etc/ssl/certs/*": "(unable to get local issuer certificate)",
    }
    for fault, sentence in faults.items():
        prepared.machine.ssh(f"cp -a {ENVIRONMENT} /etc/ssl/certs /root/; {fault}")
        told = prepared.llmhost("latency", "--requests", "1", "--tokens", "2")
        assert told.returncode == 1 and sentence in told.stdout, told.stdout + told.stderr
        prepared.machine.ssh(f"cp -a /root/llm.env {ENVIRONMENT}; cp -a /root/certs /etc/ssl/")


def test_name_that_the_host_gives_another_address_is_refused(prepared: Site) -> None:
    prepared.machine.ssh("cp /etc/hosts /root; sed -i '1i 192.0.2.77 llm-server' /etc/hosts")
    done = prepared.deploy()
    assert done.returncode != 0
    assert "/etc/hosts maps llm-server to 192.0.2.77" in done.stderr + done.stdout
    prepared.machine.ssh("cp /root/hosts /etc/hosts")


def test_owner_that_the_host_does_not_know_is_refused(prepared: Site) -> None:
    before = prepared.machine.ssh("sha256sum /etc/llmhost/*").stdout
    prepared.app["app_server_environment_owner"] = "nobody-here"
    prepared.write(SECOND)
    done = prepared.deploy()
    assert done.returncode != 0 and "there is no user nobody-here" in done.stderr + done.stdout
    assert prepared.machine.ssh("sha256sum /etc/llmhost/*").stdout == before
    prepared.app["app_server_environment_owner"] = "app"
    prepared.write(SECOND)


def test_firewall_comes_on_request_and_closes_the_host(prepared: Site, lan: Lan) -> None:
    """Nobody is told of the gateway's port: it is not on this host."""
    prepared.app |= {"app_server_firewall": True, "firewall_ssh_sources": ["192.0.2.1"]}
    prepared.write(SECOND)
    assert prepared.deploy().returncode == 0
    rules = prepared.machine.ssh("ufw status").stdout
    assert str(prepared.llm["gateway_port"]) not in rules
    stranger = lan.client("stranger")
    try:
        knock = ["curl", "-sS", "-m", "3", f"telnet://{prepared.machine.address}:22"]
        assert stranger.run(knock, check=False).returncode == 28
    finally:
        stranger.destroy()
    assert prepared.changed() == []


def test_prepared_host_passes_its_tests(prepared: Site) -> None:
    verified = prepared.llmhost("verify", "--", "-q", "-k", "app_server or network")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert " passed" in verified.stdout and "failed" not in verified.stdout
