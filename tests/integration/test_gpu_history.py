"""GPUs over time, from the real Prometheus: it reads metrics whose values are known."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost
from llmhost.monitoring import prometheus
from llmhost.status.gpu_history import (
    GpuHistory,
    Span,
    Values,
    gpu_histories,
    history_command,
    mean,
)
from tests.integration.local_gateway import free_ports

pytestmark = pytest.mark.machines

LABELS = 'gpu="{}",UUID="GPU-{}",modelName="NVIDIA L4",Hostname="x"'


@contextmanager
def gpus(port: int) -> Iterator[dict[str, float]]:
    """Metrics of two GPUs, of which the first changes with the values yielded."""
    values = {"use": 20.0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            first, second = (LABELS.format(number, number) for number in (0, 1))
            lines = [
                f"DCGM_FI_DEV_GPU_UTIL{{{first}}} {values['use']}",
                f"DCGM_FI_DEV_GPU_UTIL{{{second}}} 3",
                f"DCGM_FI_DEV_FB_USED{{{first}}} 4096",
                f"DCGM_FI_DEV_GPU_TEMP{{{first}}} 61",
            ]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(("\n".join(lines) + "\n").encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield values
        server.shutdown()


def test_values_over_time_are_those_that_prometheus_read(tmp_path: Path) -> None:
    node, port, alerts = free_ports(3)
    (tmp_path / "key").write_text("k" * 40)
    declared = {
        "services": ["redis"],
        "monitoring_enabled": True,
        "monitoring_server": True,
        "monitoring_key": f"file:{tmp_path / 'key'}",
        "monitoring_node_port": node,
        "monitoring_prometheus_port": port,
        "monitoring_alertmanager_port": alerts,
        "monitoring_interval_seconds": 5,
    }
    settings = read_settings(declared, rules=lambda _: ())
    text = prometheus.configuration("llm-1", [SiteHost("llm-1", settings)])
    (tmp_path / "alerts.yml").write_text(prometheus.alerts())
    text = text.replace(prometheus.ALERTS, str(tmp_path / "alerts.yml")).replace('"5s"', '"1s"')
    (tmp_path / "prometheus.yml").write_text(text)
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with gpus(node) as values, subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            found = histories(port, lambda use: 20 in use)
            values["use"] = 80.0
            found = histories(port, lambda use: use[-1] == 80)
        finally:
            process.terminate()
    first, second = found
    known = [value for value in first.utilization_percent if value is not None]
    assert known[0] == 20 and known[-1] == 80 and known == sorted(known)
    assert (first.index, first.uuid, first.name) == (0, "GPU-0", "NVIDIA L4")
    assert mean(first.memory_used_mib) == 4096 and mean(first.temperature_celsius) == 61
    assert first.power_watts == () and mean(second.utilization_percent) == 3


def histories(port: int, enough: Callable[[Values], bool]) -> tuple[GpuHistory, ...]:
    """The answer as soon as the values of the first GPU are `enough`."""
    deadline = time.monotonic() + 60
    while True:
        span = Span(int(time.time()), 30, 1)
        command = history_command(span, port)
        ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        found = gpu_histories(span, ran.stdout, ["llm-1"]) if ran.returncode == 0 else ()
        if found and enough(found[0].utilization_percent):
            return found
        assert time.monotonic() < deadline, ran.stderr
        time.sleep(0.5)
