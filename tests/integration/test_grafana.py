"""A whole LLM server that watches itself, by a real deploy: the real engine, nginx, Prometheus and
Alertmanager under Docker's and ufw's rules. Grafana is a double: what is real is the way from its
container to Prometheus, and who may log in. The tests go on from each other."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest, new_key
from testbed import Client, Lan, Machine
from testbed.stand_ins import options_of
from tests.integration.docker_site import docker_site
from tests.integration.test_monitoring import wait_for

pytestmark = [pytest.mark.machines, pytest.mark.monitoring]
ROOT = Path(__file__).parents[2]
KEY, MONITORING_KEY = new_key(), new_key()


@dataclass(frozen=True)
class Site:
    """The server, its inventory, and two neighbors, of which one may see dashboards."""

    machine: Machine
    inventory: Path
    operator: Client
    stranger: Client
    password: str

    def run(self, program: str, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).with_name(program)), *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)

    def deploy(self) -> list[str]:
        done = self.run("pyinfra", str(self.inventory), "deploy.py", "-y", "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)["results"]["operations"]
        return [operation["name"] for operation in report if operation["success"]]

    def dashboards(self, client: Client, path: str, *options: str) -> tuple[int, str]:
        """Status and answer of Grafana's port."""
        url = f"https://{self.machine.address}:3001{path}"
        command = ["curl", "-sk", "-m", "10", "-w", "\n%{http_code}", *options, url]
        text, _, status = client.run(command, check=False).stdout.rpartition("\n")
        return int(status), text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("grafana")
    with Lan.create("grafana") as lan:
        machine, operator, stranger = lan.machine("llm"), lan.client("op"), lan.client("stranger")
        with docker_site(lan, machine, place) as docker:
            (place / "monitoring_key").write_text(MONITORING_KEY)
            grafana = options_of("grafana", docker.registry, place)
            registry = docker.registry.name
            data: dict[str, Any] = {
                **docker.data(),
                "services": ["llamacpp", "grafana"],
                **{f"grafana_{option}": value for option, value in grafana.items()},
                "grafana_ui_sources": [operator.address],
                "monitoring_enabled": True,
                "monitoring_server": True,
                "monitoring_interval_seconds": 5,
                "monitoring_key": f"file:{place / 'monitoring_key'}",
                "stack_egress": "deny",
                # Containers are none of them: they get in by a rule of their own.
                "gateway_sources": [operator.address, stranger.address],
                "gateway_ca_directory": str(place / "ca"),
                "docker_insecure_registries": [registry],
                "preflight_min_memory_gib": 0.5,
                "preflight_min_free_disk_gib": 0,
                "api_clients": [{"name": "app", "sha256": digest(KEY)}],
                "ssh_config_file": str(machine.ssh_config),
            }
            inventory = place / "site.py"
            inventory.write_text(f"llm_servers = [({machine.name!r}, {data!r})]\n")
            password = (place / "admin_password").read_text()
            yield Site(machine, inventory, operator, stranger, password)


def test_rerun_changes_nothing(site: Site) -> None:
    site.deploy()
    assert site.deploy() == []


def test_engine_is_read_with_its_tokens(site: Site) -> None:
    body = json.dumps({"prompt": "Hello", "max_tokens": 4})
    url = f"https://{site.machine.address}:8080/v1/completions"
    command = ["curl", "-sk", "-f", "-H", f"Authorization: Bearer {KEY}", "-d", body, url]
    site.operator.run(command)
    query = "curl -s '127.0.0.1:9090/api/v1/query?query=llamacpp:tokens_predicted_total'"

    def predicted() -> float:
        found = json.loads(site.machine.ssh(query).stdout)["data"]["result"]
        return float(found[0]["value"][1]) if found else 0

    wait_for(lambda: predicted() == 4)


def test_state_of_services_is_a_metric(site: Site) -> None:
    query = "curl -s '127.0.0.1:9090/api/v1/query?query=llmhost_service_healthy'"

    def healthy() -> dict[str, str]:
        found = json.loads(site.machine.ssh(query).stdout)["data"]["result"]
        return {each["metric"]["service"]: each["value"][1] for each in found}

    wait_for(lambda: healthy() == {"llamacpp": "1", "grafana": "1"})
    site.machine.ssh("docker pause llmhost-llamacpp-1")
    wait_for(lambda: healthy() == {"llamacpp": "0", "grafana": "1"})
    site.machine.ssh("docker unpause llmhost-llamacpp-1")
    wait_for(lambda: healthy() == {"llamacpp": "1", "grafana": "1"})


def test_dashboards_are_for_those_who_log_in_from_the_allowed_networks(site: Site) -> None:
    query = "/api/datasources/proxy/uid/prometheus/api/v1/query?query=up"
    for path in ("/api/search", query):
        assert site.dashboards(site.operator, path)[0] == 401
        assert site.dashboards(site.operator, path, "-u", "admin:admin")[0] == 401
        # ufw drops the stranger's packets.
        assert site.dashboards(site.stranger, path, "-u", f"admin:{site.password}")[0] == 0
    status, listed = site.dashboards(site.operator, "/api/search", "-u", f"admin:{site.password}")
    assert status == 200
    assert {each["title"] for each in json.loads(listed)} == {
        *("Hosts", "GPUs", "Gateway", "Models")
    }


def test_grafana_reaches_prometheus_from_its_container_and_nothing_else(site: Site) -> None:
    query = "/api/datasources/proxy/uid/prometheus/api/v1/query?query=up"
    status, answer = site.dashboards(site.operator, query, "-u", f"admin:{site.password}")
    assert status == 200, answer
    jobs = {each["metric"]["job"] for each in json.loads(answer)["data"]["result"]}
    assert jobs == {"node", "gateway", "llamacpp", "prometheus", "alertmanager"}
    inside = "docker exec llmhost-grafana-1 bash -c"
    for address, port, open_ in (
        ("llmhost-gateway", 8080, True),
        ("llmhost-gateway", 22, False),
        ("llmhost-gateway", 9090, False),
        (site.machine.address, 9100, False),
    ):
        connect = f"{inside} 'exec 3<>/dev/tcp/{address}/{port}'"
        reached = site.machine.ssh(connect, check=False).returncode == 0
        assert reached is open_, (address, port)


def test_engines_have_no_key_for_the_metrics(site: Site) -> None:
    shown = site.machine.ssh("docker inspect llmhost-llamacpp-1").stdout
    assert MONITORING_KEY not in shown
    files = site.machine.ssh(
        "stat -c '%a' /opt/llmhost/services/grafana.yaml /opt/llmhost/services/llamacpp.yaml"
    ).stdout.split()
    assert files == ["600", "644"]


def test_llmhost_verify_agrees(site: Site) -> None:
    time.sleep(6)
    words = ["verify", str(site.inventory), "--outside", " ".join(site.operator.command([]))]
    chosen = "monitoring or grafana or egress or firewall or gateway"
    done = site.run("llmhost", *words, "--", "-k", chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "monitoring" in done.stdout.lower()
