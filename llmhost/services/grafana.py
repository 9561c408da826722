"""Grafana: dashboards of a monitoring server in a browser."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from llmhost.options.model import Model
from llmhost.options.types import Image, LocalPort, MemorySize, Port, SecretReference, text
from llmhost.services.base import Request, Service, UiOptions
from llmhost.services.grafana_dashboards import files
from llmhost.system.files import File


class GrafanaOptions(UiOptions):
    """`grafana_*`."""

    secret_options: ClassVar[Mapping[str, str]] = {
        "GF_SECURITY_ADMIN_PASSWORD": "admin_password",
        "GF_SECURITY_SECRET_KEY": "secret_key",
        "MONITORING_KEY": "monitoring_key",
    }

    image: Image = (
        "docker.io/grafana/grafana:12.4.11"
        "@sha256:3ea272e5cab64a4a62240c682e2c62433b25614d956d44c299a10cb6994f6f2e"
    )
    """Image of Grafana 11 or newer, pinned by digest."""

    port: LocalPort = 8086
    """Port on 127.0.0.1 of the host, between the gateway and the UI."""

    ui_port: Port = 3001
    """Port of the UI for browsers."""

    memory_limit: MemorySize | None = "1g"
    """Memory limit of the container, such as `16g`; none: no limit."""

    admin_user: Annotated[str, text(r"[\w.@-]{1,190}", "a user name", "admin")] = "admin"
    """Login of the first administrator."""

    admin_password: SecretReference = "file:~/.config/llmhost/grafana-admin-password"  # noqa: S105
    """Where the controller finds the password of the first administrator, `env:NAME` or
    `file:PATH`. It is used only at the first start, while there are no accounts."""

    secret_key: SecretReference = "file:~/.config/llmhost/grafana-secret-key"  # noqa: S105
    """Where the controller finds the key that encrypts secrets in Grafana's database."""

    monitoring_key: SecretReference = "file:~/.config/llmhost/monitoring-key"
    """The same secret as `monitoring_key`, with which Grafana reads Prometheus' metrics."""


class Grafana(Service[GrafanaOptions]):
    """Its dashboards and its data source are in its image."""

    def request(self, _models: Sequence[Model]) -> Request:
        """A request that needs its database."""
        return Request("/api/health", expects='"database"')

    def data_volumes(self, _options: GrafanaOptions) -> Sequence[str]:
        """Accounts, and dashboards that people add."""
        return ("grafana-data",)

    def context(self, _options: GrafanaOptions, _models: Sequence[Model]) -> Sequence[File]:
        """The dashboards."""
        return files()


# No route: the UI has its own port and its own login. Several public projects pin the digest of the
# default image for its tag.
SERVICE = Grafana(name="grafana", options=GrafanaOptions, container_port=3000, calls_gateway=True)
