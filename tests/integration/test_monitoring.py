"""Two machines, of which one watches both: the real Prometheus, Alertmanager and node exporter, by
whole deploys. The tests go on from each other, in the order of the file."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from testbed import Client, Lan, Machine
from testbed.fleet import Fleet, fleet

pytestmark = [pytest.mark.machines, pytest.mark.monitoring]

WATCHER, OTHER = "gate-01", "gate-02"
KEY = "a-key-of-the-monitoring-server-0123456789"
WEBHOOK_PORT = 9911
LOCAL_PORTS = (9090, 9093, 9094, 9100, 3903, 8079)


@dataclass
class Watched:
    """The machines, a stranger on their LAN, and the alerts that were sent to the webhook."""

    site: Fleet
    stranger: Client
    alerts: list[dict[str, Any]]

    def machine(self, name: str) -> Machine:
        return self.site.lan.machines[name]

    def declare(self, **watcher: Any) -> None:
        """The inventory; `watcher` changes the options of the monitoring server."""
        place = self.site.inventory.parent
        options = {
            WATCHER: {
                "monitoring_enabled": True,
                "monitoring_server": True,
                "monitoring_interval_seconds": 5,
                "monitoring_webhook": f"file:{place / 'webhook'}",
                **watcher,
            },
            OTHER: {
                "monitoring_enabled": True,
                "monitoring_interval_seconds": 5,
                "monitoring_address": self.machine(OTHER).address,
            },
        }
        group = {
            **_group(self.site.inventory),
            "monitoring_key": f"file:{place / 'monitoring-key'}",
        }
        declared = [
            (name, {"ssh_config_file": str(self.machine(name).ssh_config), **more})
            for name, more in options.items()
        ]
        self.site.inventory.write_text(f"gateways = ({declared!r}, {group!r})\n")

    def deploy(self) -> dict[str, list[str]]:
        run = self.site.deploy("--json")
        assert run.status == 0, run.said
        return run.changed

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The answer of Prometheus, on its own machine."""
        asked = f"curl -sS --get --data-urlencode 'query={expression}' 127.0.0.1:9090/api/v1/query"
        answer = json.loads(self.machine(WATCHER).ssh(asked).stdout)
        return list(answer["data"]["result"])

    def status(self, path: str, name: str = OTHER, key: str = "") -> int:
        """Status of a request to the gateway, from outside."""
        command = ["curl", "-sk", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}"]
        command += ["-H", f"Authorization: Bearer {key}"] if key else []
        url = f"https://{self.machine(name).address}:8080{path}"
        return int(self.stranger.run([*command, url], check=False).stdout)


def _group(inventory: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(inventory.read_text(), names)
    return dict(names["gateways"][1])


@contextmanager
def _webhook(address: str) -> Iterator[list[dict[str, Any]]]:
    """Takes up what Alertmanager posts."""
    alerts: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            alerts.extend(body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((address, WEBHOOK_PORT), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield alerts
        server.shutdown()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    place = tmp_path_factory.mktemp("monitoring")
    with (
        Lan.create("monitoring") as lan,
        fleet(place, lan, 2) as site,
        _webhook(lan.gateway) as alerts,
    ):
        (place / "webhook").write_text(f"http://{lan.gateway}:{WEBHOOK_PORT}/alerts")
        (place / "monitoring-key").write_text(KEY)
        found = Watched(site, lan.client("stranger"), alerts)
        found.declare()
        yield found


def wait_for(true: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.5)


def test_rerun_changes_nothing(watched: Watched) -> None:
    watched.deploy()
    assert watched.deploy() == {}


def test_one_host_reads_all(watched: Watched) -> None:
    expected = {
        *((WATCHER, job) for job in ("node", "gateway", "prometheus", "alertmanager")),
        *((OTHER, job) for job in ("node", "gateway")),
    }

    def up() -> set[tuple[str, str]]:
        found = [each["metric"] for each in watched.query("up == 1")]
        return {(each["instance"], each["job"]) for each in found}

    wait_for(lambda: up() == expected)
    for name in (WATCHER, OTHER):
        [expiry] = watched.query(f'llmhost_certificate_expires_seconds{{instance="{name}"}}')
        assert float(expiry["value"][1]) > time.time() + 600 * 86400
        served = "openssl x509 -in /etc/nginx/llmhost/tls.pem -noout -checkend"
        machine = watched.machine(name)
        assert machine.ssh(f"{served} {int(float(expiry['value'][1]) - time.time()) - 60}")


def test_nothing_answers_outside_without_the_key(watched: Watched) -> None:
    for name in (WATCHER, OTHER):
        for port in LOCAL_PORTS:
            url = f"http://{watched.machine(name).address}:{port}/metrics"
            done = watched.stranger.run(["curl", "-s", "-m", "2", url], check=False)
            assert done.returncode in (7, 28), (name, port, done.stdout)
    ordinary = (watched.site.inventory.parent / "key").read_text()
    for path in ("/metrics/node", "/metrics/gateway"):
        assert watched.status(path) == 401
        assert watched.status(path, key="wrong") == 401
        assert watched.status(path, key=ordinary) == 403
        assert watched.status(path, key=KEY) == 200
    query = "/prometheus/api/v1/query?query=up"
    assert watched.status(query, WATCHER) == 401
    assert watched.status(query, WATCHER, ordinary) == 403
    assert watched.status(query, WATCHER, KEY) == 200
    assert watched.status("/prometheus/api/v1/label/job/values", WATCHER, KEY) == 200
    # Nothing that changes or configures Prometheus, and nothing of it on the other host.
    for path in ("/prometheus/-/quit", "/prometheus/api/v1/status/config", "/prometheus/graph"):
        assert watched.status(path, WATCHER, KEY) == 404
    assert watched.status(query, OTHER, KEY) == 404
    # The key opens nothing else.
    assert watched.status("/v1/models", OTHER, KEY) == 403


def test_readings_are_no_requests_of_clients(watched: Watched) -> None:
    def logged() -> str:
        return watched.machine(OTHER).ssh("cat /var/log/nginx/gateway.json").stdout

    wait_for(lambda: '"route":"/metrics/node","status":401' in logged(), 10)
    assert '"route":"/metrics/node","status":200' not in logged()


def test_secrets_are_for_root_and_prometheus_only(watched: Watched) -> None:
    machine = watched.machine(WATCHER)
    for name in ("llmhost-key", "llmhost-alertmanager.yml"):
        shown = machine.ssh(f"stat -c '%a %U %G' /etc/prometheus/{name}").stdout.split()
        assert shown == ["640", "root", "prometheus"]
    # By a file, so that the search does not find itself.
    search = "cat >/run/key; grep -rlf /run/key /etc /proc/*/cmdline 2>/dev/null; rm /run/key"
    assert machine.ssh(search, input=KEY).stdout.split() == ["/etc/prometheus/llmhost-key"]


def test_alert_reaches_the_webhook_and_ends(watched: Watched) -> None:
    """The declared rules with shorter times."""
    machine = watched.machine(WATCHER)
    machine.ssh(
        "cd /etc/prometheus; sed -i 's/for: .*/for: 1s/' llmhost-alerts.yml;"
        ' sed -i \'s/"group_wait": "30s"/"group_wait": "1s"/;'
        ' s/"group_interval": "5m"/"group_interval": "2s"/\' llmhost-alertmanager.yml;'
        " promtool check config llmhost.yml >&2; amtool check-config llmhost-alertmanager.yml >&2;"
        " systemctl reload prometheus prometheus-alertmanager"
    )
    watched.machine(OTHER).ssh("systemctl stop prometheus-node-exporter")

    def sent(status: str) -> list[dict[str, Any]]:
        return [each for each in watched.alerts if each["status"] == status]

    def silent(status: str) -> list[str]:
        return [
            each["labels"]["instance"]
            for each in sent(status)
            if each["labels"]["alertname"] == "HostSilent"
        ]

    wait_for(lambda: silent("firing"), 90)
    assert {*silent("firing")} == {OTHER}
    [alert] = [e for e in sent("firing") if e["labels"]["alertname"] == "HostSilent"][:1]
    assert alert["annotations"]["summary"] == "gate-02 does not answer"
    watched.machine(OTHER).ssh("systemctl start prometheus-node-exporter")
    wait_for(lambda: silent("resolved"), 90)


def test_deploy_corrects_what_drifted(watched: Watched) -> None:
    watched.machine(OTHER).ssh("systemctl disable --now llmhost-metrics prometheus-node-exporter")
    changed = watched.deploy()
    assert changed["Monitoring | Declare what is measured"] == [WATCHER]
    assert changed["Monitoring | Run Prometheus"] == [WATCHER]
    assert changed["Monitoring | Collect metrics of services and GPUs"] == [OTHER]
    assert watched.deploy() == {}


def test_gpus_over_time_come_from_the_monitoring_server(watched: Watched) -> None:
    file = "/var/lib/prometheus/node-exporter/more.prom"
    labels = 'gpu="0",UUID="GPU-0",modelName="NVIDIA L4"'
    use = f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} 42\n"
    watched.machine(OTHER).ssh(f"cat > {file}", input=use)

    def histories(*hosts: str) -> list[dict[str, Any]]:
        words = ["gpus", str(watched.site.inventory), *hosts, "--since", "2m", "--json"]
        command = [sys.executable, "-m", "llmhost.cli", *words]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        return list(json.loads(ran.stdout)["gpus"])

    wait_for(histories)
    [gpu] = histories(OTHER)
    assert (gpu["host"], gpu["index"], gpu["name"]) == (OTHER, 0, "NVIDIA L4")
    assert {*gpu["utilization_percent"]} == {None, 42}
    assert histories(WATCHER) == []
    watched.machine(OTHER).ssh(f"rm {file}")


def test_monitoring_that_is_declared_off_is_removed(watched: Watched) -> None:
    watched.declare(monitoring_enabled=False, monitoring_server=False)
    watched.deploy()
    assert watched.deploy() == {}
    machine = watched.machine(WATCHER)
    left = machine.ssh(
        "ls /etc/prometheus/llmhost* /etc/systemd/system/llmhost-metrics.service", check=False
    )
    assert not left.stdout
    active = machine.ssh("systemctl is-active prometheus prometheus-node-exporter", check=False)
    assert active.stdout.split() == ["inactive", "inactive"]
    assert watched.status("/metrics/node", WATCHER, KEY) == 401
