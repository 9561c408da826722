"""Every query of the dashboards and of the alert rules, answered by a real Prometheus.

It reads real programs: node exporter, mtail behind the real nginx, llama.cpp's server, our own
collector, and the search API's metrics. Those of vLLM are served as they were recorded, and those
of Qdrant and of NVIDIA's exporter as their sources name them (tests/monitoring/recorded).
"""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llmhost.gateway.keys import digest, new_key
from llmhost.gateway.metrics import endpoints
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost
from llmhost.monitoring import prometheus
from llmhost.resources import FILES
from llmhost.services.grafana_dashboards import DASHBOARDS
from testbed.local_engine import local_engine
from tests.integration.local_gateway import free_ports, local_gateway
from tests.monitoring.metrics import recorded
from tests.programs import running

pytestmark = pytest.mark.machines
KEY = new_key()
SECONDS = 40
QUERIES = [
    (f"{dashboard.title}, {panel.title}", expression)
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
    for expression, _ in panel.queries
]
RULES = yaml.safe_load((FILES / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]
MODEL = {"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}

_IGNORED = re.compile(r'"[^"]*"|\{[^{}]*\}|\[[^]]*\]|\b(?:by|on|without)\s*\([^)]*\)')
_NAME = re.compile(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()")
_WORDS = {"and", "or", "unless", "by", "on", "bool", "offset"}


def names_in(expression: str) -> set[str]:
    """Names of metrics in a query."""
    listed = {
        name
        for alternatives in re.findall(r'__name__=~"([^"]+)"', expression)
        for name in alternatives.split("|")
    }
    bare = re.sub(r"\{[^{}]*__name__[^{}]*\}", "", expression)
    return listed | ({*_NAME.findall(_IGNORED.sub("", bare))} - _WORDS)


def exposition(found: dict[str, set[str]]) -> str:
    """Recorded names and labels with values: a histogram has two buckets."""
    lines = []
    for name, labels in found.items():
        others = [f'{label}="x"' for label in sorted(labels - {"le"})]
        for bound in ("1", "+Inf") if "le" in labels else ("",):
            own = [*others, *([f'le="{bound}"'] if bound else [])]
            lines.append(f"{name}{{{','.join(own)}}} 1")
    return "\n".join(lines) + "\n"


@contextmanager
def serving(port: int, text: str) -> Iterator[None]:
    """Serve a text as metrics."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@contextmanager
def logged(log: Path, *command: str) -> Iterator[None]:
    with log.open("w") as output, running(command, stdout=output, stderr=output):
        yield


def search_api_metrics() -> str:
    """Of the real search API, after a search."""
    program = (
        "from search_api import metrics as m; m.SEARCH_REQUESTS.labels('answered', 'hit').inc();"
        " m.SEARCH_SECONDS.observe(0.1); m.stage('embed').__enter__();"
        " m.STAGE_SECONDS.labels('embed').observe(0.1); print(m.exposition().decode())"
    )
    path = str(FILES / "images/search_api")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}); {program}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def collect(directory: Path, textfiles: Path) -> None:
    """Our own metrics, by the collector as it runs on a host without Docker and GPUs."""
    for name in ("monitoring/collect.py", "monitoring/gpus.py", "status/probe.py"):
        (directory / Path(name).name).write_bytes((FILES / name).read_bytes())
    certificate = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x"]
    certificate += ["-keyout", str(directory / "key"), "-out", str(directory / "certificate")]
    subprocess.run(certificate, check=True, capture_output=True)
    (directory / "backup.json").write_text(json.dumps({"time": int(time.time()), "snapshot": "1"}))
    asked = {
        "file": str(textfiles / "llmhost.prom"),
        "seconds": 0,
        "project": "llmhost-test-without-containers",
        "services": ["llamacpp"],
        "stopped": str(directory),
        "certificate": str(directory / "certificate"),
        "backup": str(directory / "backup.json"),
        "backup_late_seconds": 172_800,
        "pynvml": "",
    }
    (directory / "asked.json").write_text(json.dumps(asked))
    command = [sys.executable, "-I", str(directory / "collect.py"), str(directory / "asked.json")]
    subprocess.run(command, check=True, timeout=60)
    # What needs a GPU or a container: tests/unit/test_gpu_metrics.py compares the names.
    more = {
        **recorded("dcgm"),
        "llmhost_gpus": set(),
        "llmhost_gpu_devices": set(),
        "llmhost_gpu_throttled": {"gpu", "reason"},
        "llmhost_gpu_xid_total": {"pci", "xid"},
        "llmhost_service_restarts_total": {"service"},
    }
    (textfiles / "gpus.prom").write_text(exposition(more))


class Server:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False)

    def answer(self, expression: str) -> list[Any]:
        asked = expression.replace("$instance", ".*").replace("$__rate_interval", "10s")
        answer = self.api.post("/query", data={"query": asked}).json()
        assert answer["status"] == "success", (expression, answer)
        return list(answer["data"]["result"])

    def unknown(self, expression: str) -> list[str]:
        """Metrics in a query that nothing offers. ALERTS are Prometheus' own, while one fires."""
        names = names_in(expression) - {"ALERTS"}
        assert names or "ALERTS" in expression or expression == "", expression
        return [name for name in sorted(names) if not self.answer(f'{{__name__="{name}"}}')]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("dashboards")
    gateway_port, status, mtail, node, port, alerts, *services = free_ports(10)
    (place / "key").write_text("k" * 40)
    ports = dict(zip(("vllm", "search_api", "qdrant", "llamacpp"), services, strict=True))
    settings = read_settings(
        {
            "services": [*ports],
            **{f"{name}_port": each for name, each in ports.items()},
            "gateway_metrics_port": mtail,
            "monitoring_enabled": True,
            "monitoring_server": True,
            "monitoring_key": f"file:{place / 'key'}",
            "monitoring_node_port": node,
            "monitoring_prometheus_port": port,
            "monitoring_alertmanager_port": alerts,
            "monitoring_interval_seconds": 5,
        },
        rules=lambda _: (),
    )
    gateway = {
        "services": ["llamacpp"],
        "models": [MODEL],
        "llamacpp_port": ports["llamacpp"],
        "gateway_port": gateway_port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "gateway_count_tokens": True,
        "api_clients": [{"name": "app", "sha256": digest(KEY)}],
    }
    (textfiles := place / "textfiles").mkdir()
    (own := place / "collector").mkdir()
    collect(own, textfiles)
    texts = {each: exposition(recorded(each)) for each in ("vllm", "qdrant")}
    texts["search_api"] = search_api_metrics()
    text = prometheus.configuration("here", [SiteHost("here", settings)])
    (place / "alerts.yml").write_text(prometheus.alerts())
    # More often than an inventory may say, so that rates exist soon.
    text = text.replace(prometheus.ALERTS, str(place / "alerts.yml")).replace('"5s"', '"1s"')
    (place / "prometheus.yml").write_text(text)
    with ExitStack() as stack:
        for name, each in texts.items():
            stack.enter_context(serving(ports[name], each))
        (place / "engine").mkdir()
        options = ["--metrics"]
        stack.enter_context(local_engine(place / "engine", ports["llamacpp"], options=options))
        door = stack.enter_context(local_gateway(gateway, place / "nginx"))
        send_requests(door.url)
        for program, words in _programs(place, node, mtail, port).items():
            stack.enter_context(logged(place / f"{program}.log", program, *words))
        found = Server(port)
        wait_until_read(found, settings)
        # mtail counts what is written while it runs.
        send_requests(door.url)
        time.sleep(6)
        yield found


def _programs(place: Path, node: int, mtail: int, port: int) -> dict[str, list[str]]:
    return {
        "prometheus-node-exporter": [
            f"--web.listen-address=127.0.0.1:{node}",
            f"--collector.textfile.directory={place / 'textfiles'}",
        ],
        "mtail": [
            *("--address", "127.0.0.1", "--port", str(mtail)),
            *("--progs", str(FILES / "gateway/llmhost.mtail")),
            *("--logs", str(place / "nginx/logs/gateway.json")),
            *("--log_dir", str(place)),
        ],
        "prometheus": [
            f"--config.file={place / 'prometheus.yml'}",
            f"--storage.tsdb.path={place / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
    }


def send_requests(url: str) -> None:
    """One that is answered, with its tokens, and one that is refused."""
    with httpx.Client(trust_env=False) as client:
        body = {"prompt": "Hello", "max_tokens": 4}
        headers = {"Authorization": f"Bearer {KEY}"}
        path = f"{url}/v1/completions"
        assert client.post(path, headers=headers, json=body).status_code == 200
        assert client.post(path, json={}).status_code == 401


def wait_until_read(server: Server, settings: Any) -> None:
    wanted = {each.job for each in endpoints(settings)}
    end = time.monotonic() + SECONDS
    while True:
        try:
            found = {each["metric"]["job"] for each in server.answer("up == 1")}
        except (httpx.TransportError, ValueError):  # it starts, and answers 503 with a text
            found = set()
        if found >= wanted:
            return
        assert time.monotonic() < end, wanted - found
        time.sleep(0.3)


@pytest.mark.parametrize(("panel", "expression"), QUERIES, ids=lambda each: str(each)[:60])
def test_query_of_a_dashboard_is_answered(server: Server, panel: str, expression: str) -> None:
    assert server.unknown(expression) == [], panel
    assert server.answer(expression), panel


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_metrics_of_an_alert_rule_are_offered(server: Server, rule: dict[str, Any]) -> None:
    assert server.unknown(rule["expr"]) == []


def test_prometheus_evaluates_every_rule(server: Server) -> None:
    groups = server.api.get("/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in RULES}
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []


def test_metric_that_nothing_offers_is_found(server: Server) -> None:
    wrong = 'sum by (le) (rate(vllm:no_such_thing_bucket{instance=~"$instance"}[$__rate_interval]))'
    assert server.unknown(wrong) == ["vllm:no_such_thing_bucket"]
    assert server.unknown('{__name__=~"up|no_such_metric"} > 0') == ["no_such_metric"]
    assert server.answer('up{no_such_label="x"}') == []
