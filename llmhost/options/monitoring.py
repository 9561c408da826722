"""`monitoring_*`: metrics, their history, and alerts."""

from typing import Annotated

from pydantic import model_validator

from llmhost.options.base import Section
from llmhost.options.kind import Mistake
from llmhost.options.types import (
    Flag,
    HostName,
    Items,
    LocalPort,
    Name,
    SecretReference,
    text,
    whole,
)

MailAddress = Annotated[
    str, text(r"(?=.{1,254}$)[^\s@<>\"]+@[^\s@<>\"]+", "an email address", "operator@example.com")
]
MailServer = Annotated[
    str, text(r"[\w.-]+:\d{1,5}", "host and port of a mail server", "mail.example.com:587")
]


class Target(Section):
    """A program of the site on this host that offers metrics."""

    name: Name
    """Name of its metrics: the label `job`."""

    port: LocalPort
    """Port on 127.0.0.1 of the host."""

    path: Annotated[str, text(r"(/[\w.~-]+)+", "a path", "/metrics")] = "/metrics"
    """Path of the metrics."""


class Monitoring(Section):
    """Metrics of the host, its GPUs, the gateway and the services. One host of an inventory, or
    several, collect those of all hosts, keep them, and send alerts: docs/monitoring.md."""

    enabled: Flag | None = None
    """Offer metrics of this host: to itself, and through the gateway to clients with the scope
    `metrics`. False removes what an earlier deploy has set up; None leaves everything alone."""

    server: Flag = False
    """Collect the metrics of all hosts of the inventory that offer them, with Prometheus, and send
    alerts with Alertmanager."""

    key: SecretReference = "file:~/.config/llmhost/monitoring-key"
    """Where the controller finds the API key with which the monitoring server reads the metrics of
    other hosts, and Grafana those of Prometheus. A deploy admits it on each host; it allows nothing
    else."""

    address: HostName | None = None
    """Name or address at which the monitoring server reaches this host's gateway; none: the host's
    address in the inventory."""

    keep_days: Annotated[int, whole(1, 3_650, "days", 30)] = 30
    """How many days Prometheus keeps metrics."""

    max_gib: Annotated[int, whole(1, 65_536, "GiB", 20)] = 20
    """Maximum disk space of Prometheus; it removes the oldest metrics first."""

    interval_seconds: Annotated[int, whole(5, 300, "seconds", 15)] = 15
    """Time between two readings."""

    targets: Items[Target] = ()
    """Programs of the site on this host that offer metrics, as records of `name`, `port` and
    `path`."""

    webhook: SecretReference | None = None
    """Where the controller finds the URL to which Alertmanager posts alerts as JSON, because such a
    URL often contains a secret."""

    mail_to: Items[MailAddress] = ()
    """Addresses to which Alertmanager sends alerts."""

    mail_from: MailAddress = "llmhost@localhost"
    """Sender of the mails."""

    mail_server: MailServer | None = None
    """With `monitoring_mail_to`: host and port of the mail server."""

    mail_user: Annotated[str, text(r"[^\s\x00]+", "a user name", "alerts")] | None = None
    """User name at the mail server; none: no login."""

    mail_password: SecretReference | None = None
    """With `monitoring_mail_user`: where the controller finds the password."""

    mail_tls: Flag = True
    """Refuse a mail server that does not encrypt."""

    repeat_hours: Annotated[int, whole(1, 720, "hours", 12)] = 12
    """Time after which an alert that persists is sent again."""

    node_port: LocalPort = 9100
    """Port on 127.0.0.1 of the exporter of the host's metrics."""

    prometheus_port: LocalPort = 9090
    """Port of Prometheus on 127.0.0.1 of the monitoring server."""

    alertmanager_port: LocalPort = 9093
    """Port of Alertmanager on 127.0.0.1 of the monitoring server."""

    @model_validator(mode="after")
    def _server_is_monitored(self) -> "Monitoring":
        if self.server and not self.enabled:
            raise Mistake("needs monitoring_enabled; add 'monitoring_enabled': True", "server")
        return self
