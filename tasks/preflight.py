"""Preflight: checks before the first change."""

from llmhost.driver_policy import driver_policy
from llmhost.gateway.tree import NginxPaths
from llmhost.operations import preflight, upstreams
from llmhost.operations.component import component
from llmhost.settings import Settings

# Since Docker 29, a new engine keeps layers in containerd's directory, regardless of data-root.
CONTAINERD_ROOT = "/var/lib/containerd"


@component("Preflight")
def check_host(settings: Settings) -> None:
    """Stop before the first change if the host does not meet the requirements of an LLM server."""
    preflight.fit(
        name="Check that the host can become an LLM server",
        paths=[settings.docker.data_root, CONTAINERD_ROOT],
        receipt=settings.receipt.path,
        docker_source=settings.docker.source,
        min_memory_gib=settings.preflight.min_memory_gib,
        min_free_disk_gib=settings.preflight.min_free_disk_gib,
        max_clock_skew_seconds=settings.preflight.max_clock_skew_seconds,
        gpus=driver_policy(settings),
    )


@component("Preflight")
def check_app_server(settings: Settings) -> None:
    """Stop before the first change if the host cannot become an application server."""
    preflight.fit(
        name="Check that the host can become an application server",
        paths=[],
        receipt=settings.receipt.path,
        docker_source="docker",  # nothing is installed from there
        min_memory_gib=0,
        min_free_disk_gib=0,
        max_clock_skew_seconds=settings.preflight.max_clock_skew_seconds,
    )


@component("Preflight")
def check_gateway(settings: Settings) -> None:
    """Stop before the first change if the host cannot become the gateway of other servers."""
    preflight.fit(
        name="Check that the host can become a gateway",
        paths=[],
        receipt=settings.receipt.path,
        docker_source="docker",  # nothing is installed from there
        min_memory_gib=0,
        min_free_disk_gib=0,
        max_clock_skew_seconds=settings.preflight.max_clock_skew_seconds,
    )
    upstreams.reachable(
        name="Check that the servers behind the gateway can be reached",
        servers={each.name: (str(each.address), each.port) for each in settings.gateway.upstreams},
        marks=NginxPaths().own,
    )
