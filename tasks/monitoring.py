"""Monitoring: exporters on every host; Prometheus and Alertmanager on a monitoring server."""

import json
from collections.abc import Sequence
from pathlib import Path

from llmhost import backup, host_packages
from llmhost.gateway.tls import CERTIFICATE
from llmhost.gateway.tree import NginxPaths
from llmhost.inventory.site import SiteHost
from llmhost.monitoring import alertmanager, prometheus
from llmhost.operations import apt, ca_certificates, files, systemd
from llmhost.operations.component import component, warn
from llmhost.resources import FILES
from llmhost.secret import read_secret
from llmhost.settings import Settings
from llmhost.system.files import Absent, Directory, Entry, File
from llmhost.template import render

COLLECTOR = "/usr/local/lib/llmhost-monitoring"
UNIT = "llmhost-metrics.service"
TEXTFILES = "/var/lib/prometheus/node-exporter"
METRICS = f"{TEXTFILES}/llmhost.prom"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
CA_LABEL = "llmhost-monitoring"

NODE_OPTIONS = "/etc/default/prometheus-node-exporter"
PROMETHEUS_OPTIONS = "/etc/default/prometheus"
ALERTMANAGER_OPTIONS = "/etc/default/prometheus-alertmanager"

_EXPORTERS = ("prometheus-node-exporter.service", UNIT)
_SERVERS = ("prometheus.service", "prometheus-alertmanager.service")
_SERVER_FILES = (
    *(prometheus.CONFIGURATION, prometheus.ALERTS, prometheus.KEY),
    alertmanager.CONFIGURATION,
)


@component("Monitoring")
def monitor_host(settings: Settings, hosts: Sequence[SiteHost]) -> None:
    """Offer the host's metrics, and on a monitoring server collect those of `hosts`; or remove what
    does. Nothing if `monitoring_enabled` is not set."""
    if settings.monitoring.enabled is None:
        return
    wanted = bool(settings.monitoring.enabled)
    server = settings.monitoring.server
    if server and not (settings.monitoring.webhook or settings.monitoring.mail_to):
        warn("alerts are sent to nobody: set monitoring_webhook or monitoring_mail_to")
    absent = () if server else host_packages.MONITORING_SERVER
    apt.packages(
        *host_packages.monitoring(settings),
        absent=(*absent, *(() if wanted else host_packages.EXPORTER)),
        keep_stopped=[*_EXPORTERS, *_SERVERS],
        name="Install the exporter, and Prometheus on a monitoring server",
    )
    if not wanted:
        systemd.service(UNIT, running=False, enabled=False, name="Stop collecting metrics")
    files.present(
        *(_exporter_files(settings) if wanted else _no_exporter_files()),
        *(_server_files(hosts, settings) if server else map(Absent, _SERVER_FILES)),
        name="Declare what is measured",
    )
    if wanted:
        _run_exporters(settings)
    authority = _authority(settings, hosts) if server else None
    if authority:
        apt.packages(*host_packages.AUTHORITIES, name="Install the list of trusted authorities")
    ca_certificates.trusted(
        authority, label=CA_LABEL, name="Trust the site's authority for the other hosts"
    )
    if server:
        _run_server()


def _authority(settings: Settings, hosts: Sequence[SiteHost]) -> Path | None:
    """The directory of the authority with which the gateways of other hosts are checked."""
    others = [host.settings.gateway for host in hosts if host.settings is not settings]
    own = settings.gateway.ca_directory.expanduser()
    return own if any(each.tls == "ca" for each in others) else None


def _run_exporters(settings: Settings) -> None:
    systemd.without_overrides(
        *(*_EXPORTERS, *(_SERVERS if settings.monitoring.server else ())),
        known=[
            *(NODE_OPTIONS, PROMETHEUS_OPTIONS, ALERTMANAGER_OPTIONS),
            *settings.system.accepted_overrides,
        ],
        then="restart",
        name="Remove overrides of the units that measure",
    )
    systemd.service(
        "prometheus-node-exporter.service",
        newer_than=[NODE_OPTIONS],
        name="Offer the host's metrics on a local port",
    )
    systemd.service(
        UNIT, newer_than=[COLLECTOR, UNIT_FILE], name="Collect metrics of services and GPUs"
    )


def _run_server() -> None:
    systemd.service(
        "prometheus-alertmanager.service",
        newer_than=[alertmanager.CONFIGURATION, ALERTMANAGER_OPTIONS],
        name="Run Alertmanager",
    )
    systemd.service(
        "prometheus.service",
        newer_than=[prometheus.CONFIGURATION, prometheus.ALERTS, PROMETHEUS_OPTIONS],
        name="Run Prometheus",
    )


def _exporter_files(settings: Settings) -> list[Entry]:
    node = (
        f"--web.listen-address=127.0.0.1:{settings.monitoring.node_port}",
        f"--collector.textfile.directory={TEXTFILES}",
    )
    scripts = {
        "collect.py": FILES / "monitoring/collect.py",
        "gpus.py": FILES / "monitoring/gpus.py",
        "probe.py": FILES / "status/probe.py",
    }
    unit = render("monitoring/llmhost-metrics.service.j2", directory=COLLECTOR, textfiles=TEXTFILES)
    return [
        Directory(COLLECTOR),
        *(File(f"{COLLECTOR}/{name}", path.read_bytes()) for name, path in scripts.items()),
        File(f"{COLLECTOR}/asked.json", json.dumps(_asked(settings), indent=2) + "\n"),
        File(UNIT_FILE, unit),
        File(NODE_OPTIONS, render("monitoring/arguments.j2", arguments=node)),
    ]


def _no_exporter_files() -> list[Entry]:
    names = ("collect.py", "gpus.py", "probe.py", "asked.json")
    paths = (UNIT_FILE, METRICS, *(f"{COLLECTOR}/{name}" for name in names))
    return [Absent(path) for path in paths]


def _asked(settings: Settings) -> dict[str, object]:
    """The argument of files/monitoring/collect.py."""
    has_backups = settings.backup.repository and backup.containers(settings)
    return {
        "file": METRICS,
        "seconds": settings.monitoring.interval_seconds,
        "project": settings.stack.project if settings.services else "",
        "services": [*settings.services],
        "stopped": settings.stack.stopped,
        "certificate": f"{NginxPaths().own}/{CERTIFICATE}" if settings.gateway.tls != "off" else "",
        "backup": backup.record(settings) if has_backups else "",
        "backup_late_seconds": settings.backup.late_seconds,
        "pynvml": settings.nvidia_driver.probe_directory if settings.gpu_requests else "",
    }


def _server_files(hosts: Sequence[SiteHost], settings: Settings) -> list[Entry]:
    """Only root and Prometheus' user may read the secrets."""
    here = next(host.name for host in hosts if host.settings is settings)
    own, private = settings.monitoring, {"mode": "0640", "group": "prometheus"}
    key = read_secret(own.key) + "\n"
    options = {
        PROMETHEUS_OPTIONS: prometheus.arguments(settings),
        ALERTMANAGER_OPTIONS: alertmanager.arguments(own),
    }
    return [
        *(
            File(path, render("monitoring/arguments.j2", arguments=arguments))
            for path, arguments in options.items()
        ),
        File(prometheus.CONFIGURATION, prometheus.configuration(here, hosts)),
        File(prometheus.ALERTS, prometheus.alerts()),
        File(prometheus.KEY, key, **private),
        File(alertmanager.CONFIGURATION, alertmanager.configuration(own), **private),
    ]
