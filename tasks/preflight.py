"""Preflight: checks before the first change."""

from ipaddress import IPv4Address

from llmhost.driver_policy import driver_policy
from llmhost.gateway.tree import NginxPaths
from llmhost.inventory.site import Address
from llmhost.operations import preflight
from llmhost.operations.component import component
from llmhost.preflight import Requirements
from llmhost.settings import Settings
from llmhost.system.listeners import Needed

# With containerd's image store, images are there; it is the default of new hosts since Docker 29.
CONTAINERD_ROOT = "/var/lib/containerd"
_LOOPBACK = (IPv4Address("127.0.0.1"),)


@component("Preflight")
def check_host(settings: Settings, set_later: frozenset[Address] = frozenset()) -> None:
    """Stop before the first change if the host does not meet the requirements of an LLM server.
    `set_later` are addresses of its engine group that this deploy sets."""
    preflight.fit(
        Requirements(
            docker_source=settings.docker.source,
            live_restore=bool(settings.docker.daemon_config().get("live-restore")),
            min_memory_gib=settings.preflight.min_memory_gib,
            min_free_disk_gib=settings.preflight.min_free_disk_gib,
            max_clock_skew_seconds=settings.preflight.max_clock_skew_seconds,
            listens=settings.gateway.addresses,
            counts_tokens=settings.gateway.count_tokens,
            ports=(
                *_ports_of_gateway(settings),
                *_ports_of_services(settings),
                *_ports_of_monitoring(settings),
            ),
        ),
        name="Check that the host can become an LLM server",
        paths=[settings.docker.data_root, settings.docker.containerd_root or CONTAINERD_ROOT],
        roots=(settings.docker.data_root, settings.docker.containerd_root),
        receipt=settings.receipt.path,
        gateway=_gateway(settings),
        gpus=driver_policy(settings),
        group=_group(settings, set_later),
        share=settings.model_store.share,
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
            ports=(*_ports_of_gateway(settings), *_ports_of_monitoring(settings)),
        ),
        name="Check that the host can become a gateway",
        paths=[],
        receipt=settings.receipt.path,
        gateway=_gateway(settings),
    )


def _ports_of_gateway(settings: Settings) -> tuple[Needed, ...]:
    gateway, programs = settings.gateway, ("nginx",)
    uis = {f"{name}_ui_port": ui.ui_port for name, ui in settings.uis.items()}
    ports = {"gateway_port": gateway.port, **uis}
    found = [Needed(option, port, gateway.addresses, programs) for option, port in ports.items()]
    found.append(Needed("gateway_status_port", gateway.status_port, _LOOPBACK, programs))
    if gateway.metrics_port:
        found.append(Needed("gateway_metrics_port", gateway.metrics_port, _LOOPBACK, ("mtail",)))
    return tuple(found)


def _ports_of_services(settings: Settings) -> tuple[Needed, ...]:
    """Ports that Docker publishes, with or without its userland proxy."""
    apps = {app.name: f"apps[{index}].port" for index, app in enumerate(settings.apps)}
    options = settings.service_options.items()
    ports = {apps.get(name, f"{name}_port"): each.port for name, each in options if each.port}
    # An engine group has no proxy; processes are named after their program, or by vLLM.
    programs = (
        "docker-proxy",
        "dockerd",
        *(("vllm", "VLLM::APIServer") if settings.member else ()),
    )
    return tuple(Needed(option, port, _LOOPBACK, programs) for option, port in ports.items())


def _ports_of_monitoring(settings: Settings) -> tuple[Needed, ...]:
    """A process has the first 15 characters of its program's name."""
    options = settings.monitoring
    ports = {
        "monitoring_node_port": (options.enabled, options.node_port),
        "monitoring_prometheus_port": (options.server, options.prometheus_port),
        "monitoring_alertmanager_port": (options.server, options.alertmanager_port),
    }
    programs = ("prometheus", "prometheus-node", "prometheus-aler")
    return tuple(
        Needed(option, port, _LOOPBACK, programs)
        for option, (wanted, port) in ports.items()
        if wanted
    )


def _gateway(settings: Settings) -> preflight.GatewayPlan:
    servers = settings.gateway.upstreams
    return preflight.GatewayPlan(
        directory=NginxPaths().own,
        replaces_nginx=settings.gateway.replaces_nginx,
        servers={each.name: (str(each.address), each.port) for each in servers},
    )


def _group(settings: Settings, set_later: frozenset[Address]) -> preflight.GroupPlan | None:
    """What must be there; addresses that the deploy itself will set need not be."""
    group = settings.engine_group
    own = group.members.get(settings.member)
    request = settings.options("vllm").gpu_request if own else None
    if own is None or group.interface is None or request is None:
        return None
    others = tuple(name for name in group.names if name != settings.member)
    known = {name: group.members[name] for name in others}
    return preflight.GroupPlan(
        interface=group.interface,
        address=None if own in set_later else own,
        peers={
            name: str(address) for name, address in known.items() if not {address, own} & set_later
        },
        members=others,
        request=request,
        driver=not settings.nvidia_driver.managed,
    )
