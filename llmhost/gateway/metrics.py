"""Metrics of a host, and the gateway's routes to them for clients with the scope `metrics`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llmhost.gateway.keys import digest
from llmhost.options.gateway import ApiClient
from llmhost.secret import read_secret
from llmhost.services.base import Method, Route
from llmhost.settings import Settings

SCOPE: Literal["metrics"] = "metrics"
CLIENT = "llmhost-monitoring"
"""Name of the monitoring server in the access log."""

NODE, GATEWAY = "node", "gateway"
OWN_JOBS = (NODE, GATEWAY, "prometheus", "alertmanager")
"""Names that no target of the site may have."""

_READ: tuple[Method, ...] = ("GET", "POST")
# What Grafana's data source asks (pkg/promlib), and nothing that changes or configures Prometheus.
_QUERIES = (
    Route("/api/v1/query", _READ, SCOPE),
    Route("/api/v1/query_range", _READ, SCOPE),
    Route("/api/v1/series", _READ, SCOPE),
    Route("/api/v1/labels", _READ, SCOPE),
    Route("/api/v1/label/{name}/values", ("GET",), SCOPE),
    Route("/api/v1/metadata", ("GET",), SCOPE),
    Route("/api/v1/rules", ("GET",), SCOPE),
    Route("/api/v1/alerts", ("GET",), SCOPE),
    Route("/api/v1/status/buildinfo", ("GET",), SCOPE),
)


@dataclass(frozen=True)
class Endpoint:
    """Metrics of one program on 127.0.0.1 of a host; `job` is its label in Prometheus. Each of
    `models` has metrics of its own, at `?model=NAME`."""

    job: str
    port: int
    path: str = "/metrics"
    models: tuple[str, ...] = ()

    @property
    def gateway_path(self) -> str:
        """Path at the gateway."""
        return f"/metrics/{self.job}"

    @property
    def upstream(self) -> str:
        """Name of nginx's upstream; no service has a dot in its name."""
        return f"metrics.{self.job}"


def endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    """Everything that offers metrics on a host; nothing unless monitoring is enabled."""
    return tuple(_endpoints(settings)) if settings.monitoring.enabled else ()


def _endpoints(settings: Settings) -> Iterator[Endpoint]:
    yield Endpoint(NODE, settings.monitoring.node_port)
    if settings.gateway.metrics_port:
        yield Endpoint(GATEWAY, settings.gateway.metrics_port)
    for service in settings.catalogue:
        port = settings.options(service.name).port
        if service.metrics_path and port and settings.answers(service):
            models = tuple(service.metric_models(settings.models_of(service.name)))
            yield Endpoint(service.name, port, service.metrics_path, models)
    for target in settings.monitoring.targets:
        yield Endpoint(target.name, target.port, target.path)


@dataclass(frozen=True)
class MetricsRoute:
    """A route to a program on the host, other than a service: `upstream` and its port."""

    path: str
    upstream: str
    port: int
    upstream_path: str
    methods: tuple[Method, ...]


def metrics_routes(settings: Settings) -> tuple[MetricsRoute, ...]:
    """A route to each endpoint, and on a monitoring server those to Prometheus' queries."""
    found = [
        MetricsRoute(each.gateway_path, each.upstream, each.port, each.path, ("GET",))
        for each in endpoints(settings)
    ]
    if settings.monitoring.server:
        port = settings.monitoring.prometheus_port
        found += [
            MetricsRoute(
                f"/prometheus{route.path}", "metrics.queries", port, route.path, route.methods
            )
            for route in _QUERIES
        ]
    return tuple(found)


def gateway_clients(settings: Settings) -> tuple[ApiClient, ...]:
    """The declared clients, and the monitoring server."""
    if not settings.monitoring.enabled:
        return settings.api_clients
    key = digest(read_secret(settings.monitoring.key))
    return (*settings.api_clients, ApiClient(name=CLIENT, sha256=key, scope=SCOPE))
