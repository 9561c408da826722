"""Mistakes in the options of the monitoring, reported before anything changes."""

import re
from collections.abc import Iterator

from llmhost.gateway.keys import digest
from llmhost.gateway.metrics import CLIENT, OWN_JOBS, SCOPE
from llmhost.inventory.problem import Problem
from llmhost.secret import read_secret
from llmhost.services.grafana import GrafanaOptions
from llmhost.settings import Settings

_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{20,500}")
_URL = re.compile(r"https?://[^\s]+")


def monitoring_problems(settings: Settings) -> Iterator[Problem]:
    """All rules between `monitoring_*` and other options."""
    yield from _grafana_without_prometheus(settings)
    if not settings.monitoring.enabled:
        return
    yield from _unfit_key(settings)
    yield from _repeated_names(settings)
    yield from _unreachable_metrics(settings)
    yield from _unfit_receivers(settings)


def _unfit_key(settings: Settings) -> Iterator[Problem]:
    reference = settings.monitoring.key
    place = reference.partition(":")[2]
    fix = f"create it with: (umask 077; openssl rand -hex 32 > {place}), or refer to another file"
    try:
        key = read_secret(reference)
    except ValueError as error:
        yield Problem("monitoring_key", str(error), fix)
        return
    if not _KEY.fullmatch(key):
        what = "refers to a key that is not 20 to 500 letters, digits or ._~+/=-"
        yield Problem("monitoring_key", what, fix)
    for client in settings.api_clients:
        if client.name == CLIENT:
            yield Problem(
                "api_clients", f"'{CLIENT}' is the monitoring's own client", "use another name"
            )
        if digest(key) in (client.sha256, client.previous_sha256):
            what = f"refers to the key of the client '{client.name}'"
            yield Problem("monitoring_key", what, fix)


def _repeated_names(settings: Settings) -> Iterator[Problem]:
    taken = {*OWN_JOBS, *settings.services}
    for index, target in enumerate(settings.monitoring.targets):
        if target.name in taken:
            yield Problem(
                f"monitoring_targets[{index}].name",
                f"'{target.name}' is the name of other metrics",
                "use another name",
            )
        taken.add(target.name)
    if SCOPE in settings.services:
        what = f"'{SCOPE}' is the scope of clients that read metrics"
        yield Problem("services", what, "give the service another name")


def _unreachable_metrics(settings: Settings) -> Iterator[Problem]:
    for service in settings.catalogue:
        if service.metrics_path and not settings.options(service.name).port:
            yield Problem(
                f"{service.name}_port",
                "is missing, and monitoring reads the metrics of the service there",
                f"write a free port, such as {service.container_port}",
            )


def _grafana_without_prometheus(settings: Settings) -> Iterator[Problem]:
    options = settings.service_options.get("grafana")
    if not isinstance(options, GrafanaOptions):
        return
    if not settings.monitoring.server:
        yield Problem(
            "services",
            "'grafana' needs Prometheus, which this host does not run",
            "set monitoring_enabled and monitoring_server to True",
        )
        return
    try:
        same = read_secret(options.monitoring_key) == read_secret(settings.monitoring.key)
    except ValueError:
        return  # reported as a missing secret
    if not same:
        what = "refers to another secret than monitoring_key"
        yield Problem("grafana_monitoring_key", what, "write the same reference")


def _unfit_receivers(settings: Settings) -> Iterator[Problem]:
    options = settings.monitoring
    if options.mail_to and not options.mail_server:
        yield Problem(
            "monitoring_mail_server",
            "is missing, and monitoring_mail_to needs it",
            "write host and port of a mail server, such as 'mail.example.com:587'",
        )
    if (options.mail_user is None) != (options.mail_password is None):
        missing, other = "mail_user", "mail_password"
        if options.mail_password is None:
            missing, other = other, missing
        what = f"is missing, and monitoring_{other} works only together with it"
        yield Problem(f"monitoring_{missing}", what, f"add it, or remove monitoring_{other}")
    for name in ("webhook", "mail_password"):
        if reference := getattr(options, name):
            try:
                secret = read_secret(reference)
            except ValueError as error:
                yield Problem(f"monitoring_{name}", str(error))
                continue
            if name == "webhook" and not _URL.fullmatch(secret):
                what = "refers to a secret that is not an http:// or https:// URL"
                yield Problem("monitoring_webhook", what)
