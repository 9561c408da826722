"""Packages that a deploy installs, for its tasks and for bundles. Pure."""

from collections.abc import Iterator

from llmhost.docker.packages import DOCKER, docker_repository, engine_packages
from llmhost.inventory.role import Role
from llmhost.inventory.site import SiteHost
from llmhost.nvidia.container_toolkit import toolkit_repository
from llmhost.nvidia.packages import TOOLKIT
from llmhost.nvidia.repository import driver_repository
from llmhost.settings import Settings
from llmhost.system.apt_repository import Repository
from llmhost.system.clock import TIMESYNCD

# curl downloads weights and sends requests to services; nft verifies that services work offline.
_STACK = ("curl", "nftables")
_BACKUP = ("restic",)
# ufw calls sysctl, but depends on it only since Debian 13.
FIREWALL = ("ufw", "procps")
AUTHORITIES = ("ca-certificates",)
_COUNTING = ("libnginx-mod-http-js",)
_GATEWAY = ("nginx", "libnginx-mod-http-perl", "logrotate", "openssl")
METRICS = ("mtail",)
EXPORTER = ("prometheus-node-exporter",)
MONITORING_SERVER = ("prometheus", "prometheus-alertmanager")
# apparmor: without its parser dockerd silently confines no containers (moby, pkg/apparmor:
# HostSupports). A minimal Debian has no time zones, no ip and ss, no Python, which reads NVML, and
# no procps, whose kill reloads docker.service.
NETWORK = ("iproute2",)
_SYSTEM = ("apparmor", *AUTHORITIES, *NETWORK, "procps", "python3", "tzdata")


def system(settings: Settings) -> tuple[str, ...]:
    """Packages of every server and of its services, in one list: each run of apt takes a second or
    more to start."""
    updates = ["unattended-upgrades"] if settings.system.unattended_upgrades else []
    stack = _STACK if settings.services else ()
    backup = _BACKUP if settings.services and settings.backup.repository else ()
    return (*_SYSTEM, *updates, *stack, *backup)


def monitoring(settings: Settings) -> tuple[str, ...]:
    """Packages of the monitoring."""
    options = settings.monitoring
    if not options.enabled:
        return ()
    return (*EXPORTER, *(MONITORING_SERVER if options.server else ()))


def hardening(settings: Settings) -> tuple[str, ...]:
    """Packages of the hardening, which a container does not get."""
    return ("auditd",) if settings.system.hardening == "cis" else ()


def gateway(settings: Settings) -> tuple[str, ...]:
    """Packages of the gateway."""
    options = settings.gateway
    counting = _COUNTING if options.count_tokens else ()
    return (*_GATEWAY, *counting, *(METRICS if options.metrics_port else ()))


def host_packages(host: SiteHost, distribution: str, version: str) -> Iterator[str]:
    """Names, or name=version, of all packages that a deploy may install on a host of a release.

    They do not include the driver, which depends on the GPUs.
    """
    settings = host.settings
    if host.role is Role.APP_SERVER:
        yield from AUTHORITIES
        yield from NETWORK if settings.network.addresses else ()
        yield from FIREWALL if settings.firewall.enabled and settings.app_server.firewall else ()
        return
    # The clock's daemon is installed only if the host has none.
    yield from hardening(settings)
    yield from monitoring(settings)
    yield from (*system(settings), TIMESYNCD.removesuffix(".service"), *gateway(settings))
    yield from FIREWALL if settings.firewall.enabled else ()
    if host.role is not Role.LLM_SERVER:
        return
    yield from _engine(settings, distribution, version)
    if settings.gpu_requests:
        yield from (f"{name}={settings.container_toolkit.version}" for name in TOOLKIT)


def _engine(settings: Settings, distribution: str, version: str) -> Iterator[str]:
    docker = settings.docker
    if chosen := engine_packages(docker.source, distribution, version):
        pin = f"={docker.version}" if docker.version else ""
        yield from (f"{name}{pin}" for name in chosen.pinned)
        yield from chosen.others


def host_repositories(
    host: SiteHost, distribution: str, version: str, codename: str, architecture: str
) -> Iterator[Repository]:
    """Repositories of these packages, in addition to those of the distribution."""
    if host.role is not Role.LLM_SERVER:
        return
    settings = host.settings
    docker, driver, toolkit = settings.docker, settings.nvidia_driver, settings.container_toolkit
    if docker.source == DOCKER:
        url, key = docker.repository_url, docker.repository_key_fingerprint
        yield docker_repository(url, key, None, distribution, codename)
    if not settings.gpu_requests:
        return
    yield toolkit_repository(
        toolkit.repository_url, toolkit.repository_fingerprint, toolkit.key_url, architecture
    )
    by_default = "nvidia" if distribution == "debian" else "distribution"
    if driver.managed and driver.source in {"nvidia", "auto"}:
        source = by_default if driver.source == "auto" else driver.source
        if source == "nvidia":
            machine = {"arm64": "aarch64"}.get(architecture, "x86_64")
            release = f"{distribution}-{version}"
            yield driver_repository(
                driver.repository_url, driver.repository_fingerprint, release, machine
            )
