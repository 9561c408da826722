"""Prometheus' configuration: the hosts that it reads, with their metrics, and its alert rules.

It is written as JSON, which is YAML too.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from llmhost.gateway.metrics import Endpoint, endpoints
from llmhost.gateway.tree import tls
from llmhost.inventory.site import Site, SiteHost
from llmhost.resources import FILES
from llmhost.settings import Settings

DIRECTORY = "/etc/prometheus"
CONFIGURATION = f"{DIRECTORY}/llmhost.yml"
ALERTS = f"{DIRECTORY}/llmhost-alerts.yml"
KEY = f"{DIRECTORY}/llmhost-key"
DATA = "/var/lib/prometheus/metrics2"

HEADER = "# Managed by llmhost: edit the inventory instead.\n"


def monitored(here: str, site: Site) -> tuple[SiteHost, ...]:
    """The hosts whose metrics a monitoring server reads: itself first, then by name."""
    found = [host for host in site.values() if host.settings.monitoring.enabled]
    return tuple(sorted(found, key=lambda host: (host.name != here, host.name)))


def configuration(here: str, hosts: Sequence[SiteHost]) -> str:
    """The file CONFIGURATION of the monitoring server `here`."""
    own = next(host.settings for host in hosts if host.name == here).monitoring
    local = f"127.0.0.1:{own.alertmanager_port}"
    document = {
        "global": {
            "scrape_interval": f"{own.interval_seconds}s",
            "scrape_timeout": f"{min(10, own.interval_seconds)}s",
            "evaluation_interval": f"{own.interval_seconds}s",
        },
        "rule_files": [ALERTS],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [local]}]}]},
        "scrape_configs": [
            _own(host) if host.name == here else _other(host)
            for host in hosts
            if endpoints(host.settings)
        ],
    }
    return HEADER + json.dumps(document, indent=2) + "\n"


def alerts() -> str:
    """The file ALERTS."""
    return (FILES / "monitoring/alerts.yml").read_text(encoding="utf-8")


def arguments(settings: Settings) -> tuple[str, ...]:
    """Arguments of Prometheus."""
    own = settings.monitoring
    return (
        f"--config.file={CONFIGURATION}",
        f"--storage.tsdb.path={DATA}",
        f"--storage.tsdb.retention.time={own.keep_days}d",
        f"--storage.tsdb.retention.size={own.max_gib}GB",
        f"--web.listen-address=127.0.0.1:{own.prometheus_port}",
    )


def _own(host: SiteHost) -> dict[str, Any]:
    """By the loopback: Prometheus itself and Alertmanager, too."""
    own = host.settings.monitoring
    found = [
        *endpoints(host.settings),
        Endpoint("prometheus", own.prometheus_port),
        Endpoint("alertmanager", own.alertmanager_port),
    ]
    return {
        "job_name": host.name,
        "static_configs": [
            target
            for each in found
            for target in _targets(host, each, f"127.0.0.1:{each.port}", each.path)
        ],
    }


def _other(host: SiteHost) -> dict[str, Any]:
    """By the host's gateway, with a key and TLS."""
    gateway = host.settings.gateway
    contact = address_of(host)
    address = f"[{contact}]:{gateway.port}" if ":" in contact else f"{contact}:{gateway.port}"
    encryption = tls(host.settings)
    security: dict[str, Any] = {"scheme": "http"}
    if encryption:
        name = (encryption.names or (host.name.lower(),))[0]
        security = {"scheme": "https", "tls_config": {"server_name": name}}
    return {
        "job_name": host.name,
        **security,
        "authorization": {"credentials_file": KEY},
        "static_configs": [
            target
            for each in endpoints(host.settings)
            for target in _targets(host, each, address, each.gateway_path)
        ],
    }


def address_of(host: SiteHost) -> str:
    """Where the monitoring server reaches a host."""
    named = host.settings.monitoring.address or host.address
    return str(named or host.contact or host.name)


def _targets(
    host: SiteHost, endpoint: Endpoint, address: str, path: str
) -> Iterator[dict[str, Any]]:
    """A target's own `job` and `instance` replace those that Prometheus would set. A parameter of
    its requests is a label, too."""
    labels = {"job": endpoint.job, "instance": host.name, "__metrics_path__": path}
    for model in endpoint.models:
        of_model = {"model": model, "__param_model": model}
        yield {"targets": [address], "labels": labels | of_model}
    if not endpoint.models:
        yield {"targets": [address], "labels": labels}
