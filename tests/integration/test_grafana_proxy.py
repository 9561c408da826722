"""Grafana's data source, as provisioned, reaches the real Prometheus through the real nginx, with
its key alone. Grafana is a double; tests/integration/test_grafana.py has it in its container."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.resources import FILES
from tests.integration.local_gateway import free_ports, local_gateway
from tests.integration.test_alertmanager import wait_for
from tests.integration.test_dashboards import logged

pytestmark = pytest.mark.machines
ROOT = Path(__file__).parents[2]
PROXY = "/api/datasources/proxy/uid/prometheus/api/v1"
PASSWORD = "a password of the administrator"


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return free_ports(8)


@pytest.fixture(scope="module")
def key() -> str:
    return new_key()


@pytest.fixture(scope="module")
def grafana(tmp_path_factory: pytest.TempPathFactory, ports: list[int], key: str) -> Iterator[str]:
    place = tmp_path_factory.mktemp("proxy")
    (place / "key").write_text(key)
    gateway, status, port, prometheus, mtail, node, ui, alerts = ports
    secrets = ("grafana_admin_password", "grafana_secret_key", "grafana_monitoring_key")
    data = {
        "services": ["grafana"],
        "grafana_port": port,
        "grafana_ui_port": ui,
        **dict.fromkeys((*secrets, "monitoring_key"), f"file:{place / 'key'}"),
        "monitoring_enabled": True,
        "monitoring_server": True,
        "monitoring_prometheus_port": prometheus,
        "monitoring_alertmanager_port": alerts,
        "monitoring_node_port": node,
        "gateway_metrics_port": mtail,
        "gateway_port": gateway,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_names": ["localhost"],
        "gateway_ca_directory": str(place / "ca"),
        "api_clients": [{"name": "app", "sha256": digest(new_key())}],
    }
    (place / "prometheus.yml").write_text("scrape_configs: []\n")
    words = [f"--config.file={place / 'prometheus.yml'}", f"--storage.tsdb.path={place / 'data'}"]
    words.append(f"--web.listen-address=127.0.0.1:{prometheus}")
    url = f"http://127.0.0.1:{port}"
    with (
        logged(place / "prometheus.log", "prometheus", *words),
        local_gateway(data, place / "nginx"),
        double(place, port, f"https://localhost:{gateway}/prometheus", key),
    ):
        wait_for(lambda: answers(f"{url}/api/health"))
        wait_for(lambda: answers(f"http://127.0.0.1:{prometheus}/-/ready"))
        yield url


def double(place: Path, port: int, prometheus: str, key: str) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "PROMETHEUS_URL": prometheus,
        "MONITORING_KEY": key,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_DATA": str(place),
        "GF_PATHS_PROVISIONING": str(FILES / "images/grafana/provisioning"),
        "GF_SECURITY_ADMIN_PASSWORD": PASSWORD,
        **closed(),
    }
    return _Ended([sys.executable, str(ROOT / "tests/doubles/grafana.py")], env=environment)


class _Ended(subprocess.Popen[bytes]):
    """Ends with its block."""

    def __exit__(self, *_: object) -> None:
        self.terminate()
        self.wait()


def closed() -> dict[str, str]:
    """The variables with which the service's template closes Grafana."""
    text = (ROOT / "templates/services/grafana.yaml.j2").read_text()
    pairs = (line.strip().split(": ") for line in text.splitlines() if '"false"' in line)
    found = {name: value.strip('"') for name, value in pairs}
    return {**found, "GF_PLUGINS_PREINSTALL_DISABLED": "true"}


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def ask(grafana: str, path: str, password: str = PASSWORD) -> httpx.Response:
    return httpx.get(f"{grafana}{path}", auth=("admin", password), trust_env=False)


def test_query_is_answered_after_a_login_only(grafana: str) -> None:
    assert httpx.get(f"{grafana}{PROXY}/query?query=1", trust_env=False).status_code == 401
    assert ask(grafana, f"{PROXY}/query?query=1", "admin").status_code == 401
    answer = ask(grafana, f"{PROXY}/query?query=1")
    assert answer.status_code == 200 and answer.json()["data"]["result"][1] == "1"
    assert ask(grafana, f"{PROXY}/label/job/values").status_code == 200


def test_gateway_passes_on_queries_alone(grafana: str) -> None:
    assert ask(grafana, f"{PROXY}/status/config").status_code == 404
    assert ask(grafana, f"{PROXY}/admin/tsdb/snapshot").status_code == 404


def test_names_of_the_gateway_include_that_of_its_services(
    grafana: str, ports: list[int], key: str
) -> None:
    """Containers call it by a name that no certificate of the site has by itself."""
    url = f"https://llmhost-gateway:{ports[0]}/prometheus/api/v1/query?query=1"
    command = ["curl", "-s", "-k", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*"]
    command += ["--connect-to", f"llmhost-gateway:{ports[0]}:127.0.0.1:{ports[0]}"]
    for header, status in ((f"Authorization: Bearer {key}", "200"), ("X: y", "401")):
        ran = subprocess.run([*command, "-H", header, url], capture_output=True, text=True)
        assert ran.stdout == status
    other = [word.replace("llmhost-gateway", "other-name") for word in [*command, url]]
    assert subprocess.run(other, capture_output=True).returncode != 0
    assert grafana
