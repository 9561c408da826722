"""Gateway: nginx, the server's only entry point."""

from llmhost import host_packages
from llmhost.gateway import tree
from llmhost.operations import apt, files, nginx, systemd
from llmhost.operations.component import component, warn
from llmhost.settings import Settings
from llmhost.system.files import Absent, Directory, Entry, File
from llmhost.template import render

LOGROTATE = "/etc/logrotate.d/llmhost-gateway"
BODIES = "/etc/tmpfiles.d/llmhost-gateway.conf"
MTAIL_OPTIONS = "/etc/default/mtail"
MTAIL_PROGRAM = "/etc/mtail/llmhost.mtail"


@component("Gateway")
def configure_gateway(settings: Settings) -> None:
    """Admit only the declared clients to the declared routes."""
    places = tree.NginxPaths()
    if settings.gateway.tls == "off":
        warn('gateway_tls = "off": keys and prompts cross the network in plain text')
    if settings.gateway.upstreams and settings.gateway.upstream_tls == "off":
        warn('gateway_upstream_tls = "off": the API key of the servers crosses the network')
    apt.packages(
        *host_packages.gateway(settings),
        absent=() if settings.gateway.metrics_port else host_packages.METRICS,
        # The packaged site listens on IPv6, and without it the installation would fail.
        keep_stopped=["nginx.service"],
        name="Install nginx with its Perl module",
    )
    files.present(
        *_log_readers(settings, places),
        *_counters(settings, places),
        File(BODIES, (tree.STATIC / "bodies.tmpfiles").read_text()),
        name="Configure what reads the access log and what removes bodies of requests",
    )
    systemd.without_overrides(
        *("nginx.service", "mtail.service", "logrotate.timer", "logrotate.service"),
        known=[MTAIL_OPTIONS, *settings.system.accepted_overrides],
        then="restart",
        name="Remove overrides of the gateway's units",
    )
    nginx.configuration(
        *tree.configuration(settings, places),
        directory=places.own,
        status_port=settings.gateway.status_port,
        tls=tree.tls(settings),
        pool=tree.pool(settings),
        name="Open the declared routes to the declared clients",
    )
    systemd.service("logrotate.timer", name="Rotate the access log")
    if settings.gateway.metrics_port:
        systemd.service(
            "mtail",
            newer_than=[MTAIL_OPTIONS, MTAIL_PROGRAM],
            name="Serve metrics on a local port",
        )


def _counters(settings: Settings, places: tree.NginxPaths) -> list[Entry]:
    """Where nginx counts the tokens of clients with a quota."""
    if not any(client.tokens_per_day for client in settings.api_clients):
        return []
    return [Directory(places.counters, "0700", "www-data", "www-data")]


def _log_readers(settings: Settings, places: tree.NginxPaths) -> list[File | Absent]:
    """Rotation, and metrics if they are declared."""
    rotation = File(
        LOGROTATE, render("gateway/llmhost-gateway.j2", places=places, gateway=settings.gateway)
    )
    if not settings.gateway.metrics_port:
        return [rotation, Absent(MTAIL_OPTIONS), Absent(MTAIL_PROGRAM)]
    options = render("gateway/mtail.j2", places=places, gateway=settings.gateway)
    program = (tree.STATIC / "llmhost.mtail").read_text()
    return [rotation, File(MTAIL_OPTIONS, options), File(MTAIL_PROGRAM, program)]
