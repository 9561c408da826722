"""Metrics and alerts of a provisioned server."""

import json
import shlex
import time
from typing import Any

import pytest

from llmhost.checks.applies import does_not_apply
from llmhost.checks.command_log import unit
from llmhost.checks.gateway_client import Door
from llmhost.checks.outside import Outside
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def _enabled(settings: Settings) -> None:
    if not settings.monitoring.enabled:
        does_not_apply("monitoring_enabled is off")


@pytest.fixture(scope="module")
def _is_server(settings: Settings) -> None:
    if not settings.monitoring.server:
        does_not_apply("monitoring_server is off")


def _ask(host: Any, port: int, path: str) -> str:
    return str(
        host.check_output(f"curl -sSf -m 10 {shlex.quote(f'http://127.0.0.1:{port}{path}')}")
    )


@pytest.mark.usefixtures("_enabled")
def test_metrics_of_the_host_are_offered_and_new(host: Any, settings: Settings) -> None:
    assert unit(host, "prometheus-node-exporter") == "active, enabled"
    assert unit(host, "llmhost-metrics") == "active, enabled"
    text = _ask(host, settings.monitoring.node_port, "/metrics")
    lines = [each for each in text.splitlines() if each.startswith("node_textfile_mtime_seconds{")]
    [written] = [float(each.split()[-1]) for each in lines if "llmhost.prom" in each]
    age = float(host.check_output("date +%s")) - written
    assert age < 60 + 2 * settings.monitoring.interval_seconds


@pytest.mark.usefixtures("_enabled")
def test_metrics_listen_on_the_loopback_only(host: Any, settings: Settings) -> None:
    options = settings.monitoring
    ports = [options.node_port]
    if options.server:
        ports += [options.prometheus_port, options.alertmanager_port, 9094]
    listed = host.check_output("ss -Hltn").splitlines()
    places = [line.split()[3].rpartition(":") for line in listed]
    assert {place for place, _, port in places if int(port) in ports} == {"127.0.0.1"}


@pytest.mark.usefixtures("_enabled")
def test_metrics_need_a_key(outside: Outside, door: Door, settings: Settings) -> None:
    paths = ["/metrics/node"]
    if settings.monitoring.server:
        paths.append("/prometheus/api/v1/query?query=up")
    for path in paths:
        command = ["curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", *door.curl]
        assert outside(*command, door.url + path).stdout in ("401", "429"), path


@pytest.mark.usefixtures("_is_server")
def test_every_target_is_read(host: Any, settings: Settings) -> None:
    assert unit(host, "prometheus") == "active, enabled"
    port, end = settings.monitoring.prometheus_port, time.monotonic() + 90
    stopped = host.run(f"ls {shlex.quote(settings.stack.stopped)} 2>/dev/null").stdout.split()
    while True:
        targets = json.loads(_ask(host, port, "/api/v1/targets"))["data"]["activeTargets"]
        down = [
            f"{each['labels']['instance']} {each['labels']['job']}: {each['lastError']}"
            for each in targets
            if each["health"] != "up" and each["labels"]["job"] not in stopped
        ]
        if (targets and not down) or time.monotonic() > end:
            break
        time.sleep(3)
    assert targets and down == []


@pytest.mark.usefixtures("_is_server")
def test_alert_rules_are_evaluated(host: Any, settings: Settings) -> None:
    assert unit(host, "prometheus-alertmanager") == "active, enabled"
    answer = json.loads(_ask(host, settings.monitoring.prometheus_port, "/api/v1/rules"))
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    assert rules and [rule["name"] for rule in rules if rule["health"] == "err"] == []
    status = json.loads(_ask(host, settings.monitoring.alertmanager_port, "/api/v2/status"))
    assert status["cluster"]["status"] == "disabled"
