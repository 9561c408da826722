"""Preflight: checks before the first change."""

from llmhost.driver_policy import driver_policy
from llmhost.gateway.tree import NginxPaths
from llmhost.operations import preflight
from llmhost.operations.component import component
from llmhost.preflight import Requirements
from llmhost.settings import Settings

# With containerd's image store, images are there; it is the default of new hosts since Docker 29.
CONTAINERD_ROOT = "/var/lib/containerd"


@component("Preflight")
def check_host(settings: Settings) -> None:
    """Stop before the first change if the host does not meet the requirements of an LLM server."""
    preflight.fit(
        Requirements(
            docker_source=settings.docker.source,
            min_memory_gib=settings.preflight.min_memory_gib,
            min_free_disk_gib=settings.preflight.min_free_disk_gib,
            max_clock_skew_seconds=settings.preflight.max_clock_skew_seconds,
            listens=settings.gateway.addresses,
            counts_tokens=settings.gateway.count_tokens,
        ),
        name="Check that the host can become an LLM server",
        paths=[settings.docker.data_root, settings.docker.containerd_root or CONTAINERD_ROOT],
        roots=(settings.docker.data_root, settings.docker.containerd_root),
        receipt=settings.receipt.path,
        gateway=_gateway(settings),
        gpus=driver_policy(settings),
    )


@component("Preflight")
def check_app_server(settings: Settings) -> None:
    """Stop before the first change if the host cannot become an application server."""
    preflight.fit(
        Requirements(max_clock_skew_seconds=settings.preflight.max_clock_skew_seconds),
        name="Check that the host can become an application server",
        paths=[],
        receipt=settings.receipt.path,
    )


@component("Preflight")
def check_gateway(settings: Settings) -> None:
    """Stop before the first change if the host cannot become the gateway of other servers."""
    preflight.fit(
        Requirements(
            max_clock_skew_seconds=settings.preflight.max_clock_skew_seconds,
            listens=settings.gateway.addresses,
            counts_tokens=settings.gateway.count_tokens,
        ),
        name="Check that the host can become a gateway",
        paths=[],
        receipt=settings.receipt.path,
        gateway=_gateway(settings),
    )


def _gateway(settings: Settings) -> preflight.GatewayPlan:
    servers = settings.gateway.upstreams
    return preflight.GatewayPlan(
        directory=NginxPaths().own,
        replaces_nginx=settings.gateway.replaces_nginx,
        servers={each.name: (str(each.address), each.port) for each in servers},
    )
