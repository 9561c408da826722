"""Configurations of Prometheus and Alertmanager, judged by their own tools, and the alert rules."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

from llmhost.gateway.keys import digest
from llmhost.gateway.metrics import endpoints, gateway_clients
from llmhost.gateway.policy import policies_of
from llmhost.gateway.routes import exposed_routes, grants
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost
from llmhost.monitoring import alertmanager, prometheus
from llmhost.operations import apt, ca_certificates, files, systemd
from llmhost.resources import FILES
from llmhost.services.grafana_dashboards import DASHBOARDS, Dashboard, document
from llmhost.tasks import monitoring as task

register_default_plugins()
KEY = "k" * 40
TESTS = Path(__file__).parents[1] / "monitoring/alerts_test.yml"
DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONITORING_KEY", KEY)
    monkeypatch.setenv("WEBHOOK", "https://chat.example/hooks/T0K3N")
    monkeypatch.setenv("MAIL_PASSWORD", 'pass"word # {x}')


def data(**more: Any) -> dict[str, Any]:
    return {
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "api_clients": [{"name": "app", "sha256": DIGEST}],
        "monitoring_enabled": True,
        "monitoring_key": "env:MONITORING_KEY",
        **more,
    }


def host(name: str, contact: str, **more: Any) -> SiteHost:
    return SiteHost(name, read_settings(data(**more)), contact=contact)


def site() -> tuple[SiteHost, ...]:
    return (
        host("watch", "192.0.2.1", monitoring_server=True),
        host("Plain", "2001:db8::2", gateway_tls="off"),
        host("named", "ssh.example", gateway_names=["llm.example"], monitoring_address="10.0.0.7"),
        host(
            "own",
            "192.0.2.9",
            monitoring_targets=[{"name": "backend", "port": 3001, "path": "/m/prometheus"}],
        ),
    )


def scrapes() -> dict[str, Any]:
    document = yaml.safe_load(prometheus.configuration("watch", site()))
    return {each["job_name"]: each for each in document["scrape_configs"]}


def checked(tool: str, *words: str, text: str, place: Path) -> None:
    """The tool's own judgment of a file, whose neighbors are in the same directory."""
    for path in (prometheus.ALERTS, prometheus.KEY):
        text = text.replace(path, str(place / Path(path).name))
    (place / "llmhost-alerts.yml").write_text(prometheus.alerts())
    (place / "llmhost-key").write_text(KEY)
    (place / "file.yml").write_text(text)
    ran = subprocess.run(
        [tool, *words, str(place / "file.yml")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    text = prometheus.configuration("watch", site())
    checked("promtool", "check", "config", text=text, place=tmp_path)


def test_own_host_is_read_on_the_loopback_and_others_through_their_gateways() -> None:
    found = scrapes()
    assert [*found] == ["watch", "Plain", "named", "own"]
    own = found["watch"]
    assert "authorization" not in own
    assert {each["targets"][0] for each in own["static_configs"]} == {
        *("127.0.0.1:9100", "127.0.0.1:3903", "127.0.0.1:8081"),
        *("127.0.0.1:9090", "127.0.0.1:9093"),
    }
    other = found["named"]
    assert other["authorization"] == {"credentials_file": "/etc/prometheus/llmhost-key"}
    assert (other["scheme"], other["tls_config"]) == ("https", {"server_name": "llm.example"})
    assert {each["targets"][0] for each in other["static_configs"]} == {"10.0.0.7:8080"}
    paths = {each["labels"]["__metrics_path__"] for each in other["static_configs"]}
    assert paths == {"/metrics/node", "/metrics/gateway", "/metrics/llamacpp"}
    assert found["Plain"]["scheme"] == "http"
    assert found["Plain"]["static_configs"][0]["targets"] == ["[2001:db8::2]:8080"]
    assert found["own"]["tls_config"] == {"server_name": "own"}
    targets = [each["labels"] for each in found["own"]["static_configs"]]
    assert targets[-1]["job"] == "backend"
    assert targets[-1]["__metrics_path__"] == "/metrics/backend"


def test_each_of_several_models_of_llamacpp_is_a_target(tmp_path: Path) -> None:
    """Its router refuses a request for metrics that names no model."""
    two = [data()["models"][0] | {"name": name} for name in ("base", "legal")]
    hosts = (site()[0], host("two", "192.0.2.2", models=two), host("one", "192.0.2.3"))
    text = prometheus.configuration("watch", hosts)
    checked("promtool", "check", "config", text=text, place=tmp_path)
    found = {
        each["job_name"]: each["static_configs"] for each in yaml.safe_load(text)["scrape_configs"]
    }
    labels = {
        name: [each["labels"] for each in targets if each["labels"]["job"] == "llamacpp"]
        for name, targets in found.items()
    }
    assert [each["__param_model"] for each in labels["two"]] == ["base", "legal"]
    assert [each["model"] for each in labels["two"]] == ["base", "legal"]
    assert {each["__metrics_path__"] for each in labels["two"]} == {"/metrics/llamacpp"}
    for name in ("watch", "one"):
        (only,) = labels[name]
        assert not {"model", "__param_model"} & only.keys()
    paths = [each.path for each in exposed_routes(hosts[1].settings) if each.scope == "metrics"]
    assert paths.count("/metrics/llamacpp") == 1


def test_no_metrics_without_monitoring() -> None:
    off = {key: value for key, value in data().items() if not key.startswith("monitoring_")}
    for more in ({}, {"monitoring_enabled": False}):
        settings = read_settings(off | more)
        assert endpoints(settings) == ()
        assert not [each for each in exposed_routes(settings) if each.scope == "metrics"]
        assert gateway_clients(settings) == settings.api_clients


def test_key_of_the_monitoring_opens_metrics_and_nothing_else() -> None:
    settings = read_settings(data(monitoring_server=True))
    [own] = [each for each in gateway_clients(settings) if each.sha256 == digest(KEY)]
    opened = {path for _, _, path in grants(policies_of([own]), exposed_routes(settings))}
    assert {path.split("/")[1] for path in opened} == {"metrics", "prometheus"}
    ordinary = {
        path for _, _, path in grants(policies_of(settings.api_clients), exposed_routes(settings))
    }
    assert ordinary and not ordinary & opened


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"monitoring_webhook": "env:WEBHOOK"},
        {
            "monitoring_mail_to": ["one@example.com", "two@example.com"],
            "monitoring_mail_server": "mail.example.com:587",
            "monitoring_mail_user": "alerts",
            "monitoring_mail_password": "env:MAIL_PASSWORD",
        },
    ],
)
def test_alertmanager_accepts_its_configuration(more: dict[str, Any], tmp_path: Path) -> None:
    settings = read_settings(data(monitoring_server=True, **more))
    text = alertmanager.configuration(settings.monitoring)
    checked("amtool", "check-config", text=text, place=tmp_path)
    [receiver] = yaml.safe_load(text)["receivers"]
    assert len(receiver) == (2 if more else 1)
    for mail in receiver.get("email_configs", ()):
        assert mail["auth_password"] == 'pass"word # {x}' and mail["require_tls"] is True


def test_alert_rules_fire_in_their_cases_and_in_no_other(tmp_path: Path) -> None:
    shutil.copy(TESTS, tmp_path)
    (tmp_path / "alerts.yml").write_text(prometheus.alerts())
    ran = subprocess.run(
        ["promtool", "test", "rules", TESTS.name], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_rule_has_a_case_and_a_counterexample() -> None:
    rules = yaml.safe_load((FILES / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]
    cases = [
        case
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    for fires in (True, False):
        tested = {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires}
        assert tested == {rule["alert"] for rule in rules}


@pytest.mark.parametrize(
    ("more", "key", "what"),
    [
        ({"monitoring_key": "env:UNSET"}, "monitoring_key", "UNSET, which is not set"),
        ({"monitoring_key": "env:MAIL_PASSWORD"}, "monitoring_key", "20 to 500 letters"),
        (
            {"api_clients": [{"name": "app", "sha256": digest(KEY)}]},
            "monitoring_key",
            "the key of the client 'app'",
        ),
        (
            {"api_clients": [{"name": "llmhost-monitoring", "sha256": DIGEST}]},
            "api_clients",
            "own client",
        ),
        ({"services": ["llamacpp", "qdrant"]}, "qdrant_port", "is missing, and monitoring reads"),
        (
            {"monitoring_targets": [{"name": "node", "port": 3001}]},
            "monitoring_targets[0].name",
            "other metrics",
        ),
        ({"monitoring_webhook": "env:MONITORING_KEY"}, "monitoring_webhook", "not an http"),
        ({"monitoring_webhook": "env:UNSET"}, "monitoring_webhook", "which is not set"),
        (
            {"monitoring_enabled": False, "monitoring_server": True},
            "monitoring_server",
            "needs monitoring_enabled",
        ),
        ({"monitoring_mail_to": ["a@b.example"]}, "monitoring_mail_server", "is missing"),
        ({"monitoring_mail_user": "me"}, "monitoring_mail_password", "is missing"),
        ({"llamacpp_port": 9100}, "monitoring_node_port", "are both 9100"),
    ],
)
def test_mistake_is_one_sentence(more: dict[str, Any], key: str, what: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({**data(), **more})
    sentences = [each.sentence("here") for each in error.value.problems]
    assert len(sentences) == 1 and key in sentences[0] and what in sentences[0], sentences
    assert KEY not in sentences[0]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: str(each.uid))
def test_grafanas_schema_knows_all_of_a_dashboard(dashboard: Dashboard) -> None:
    """Read and written again by Grafana's own classes, nothing is lost: they drop what they do not
    know."""
    ours = json.loads(json.dumps(document(dashboard)))
    read = GrafanaDashboard.from_json(ours)
    assert missing(ours, json.loads(json.dumps(read, cls=JSONEncoder))) == []
    wrong = {**ours, "no_such_field": 1}
    assert missing(wrong, json.loads(json.dumps(read, cls=JSONEncoder))) == ["/no_such_field"]


def missing(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Places where the second value does not have what the first one has."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = {key: (value, theirs.get(key)) for key, value in ours.items()}
        return [each for key, pair in pairs.items() for each in missing(*pair, f"{path}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        rows = enumerate(zip(ours, theirs, strict=True))
        return [each for index, pair in rows for each in missing(*pair, f"{path}/{index}")]
    return [] if ours == theirs else [path]


def test_panels_of_a_dashboard_do_not_overlap() -> None:
    for dashboard in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        panels: Any = document(dashboard)["panels"]
        for panel in panels:
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not taken & cells and at["x"] + at["w"] <= 24, panel["title"]
            taken |= cells


@pytest.mark.parametrize(
    ("options", "trusts"),
    [
        ({"monitoring_server": True}, True),
        ({"monitoring_server": False}, False),
        ({"monitoring_enabled": False}, False),
    ],
    ids=["server", "no-server", "no-monitoring"],
)
def test_only_a_monitoring_server_trusts_the_authority_of_others(
    options: dict[str, Any], trusts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (apt, files, systemd):
        for name in ("packages", "present", "service", "without_overrides"):
            monkeypatch.setattr(module, name, lambda *_, **__: None, raising=False)
    found: list[object] = []
    monkeypatch.setattr(
        ca_certificates,
        "trusted",
        lambda authority, **more: found.append((authority, more["label"])),
    )
    own = host("watch", "192.0.2.1", **options)
    others = [own, host("other", "192.0.2.2")]
    task.monitor_host._inner(own.settings, others)  # type: ignore[attr-defined]
    authority = own.settings.gateway.ca_directory.expanduser() if trusts else None
    assert found == [(authority, task.CA_LABEL)]
