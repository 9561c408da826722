"""Which packages the deploy installs, for its tasks and for a bundle that brings them. Pure."""

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

# curl downloads weights and asks services; nft verifies that services work offline.
_STACK = ("curl", "nftables")
# ufw calls sysctl, but depends on it only since Debian 13.
FIREWALL = ("ufw", "procps")
AUTHORITIES = ("ca-certificates",)
_GATEWAY = ("nginx", "libnginx-mod-http-perl", "logrotate", "openssl")
METRICS = ("mtail",)
# apparmor: without its parser dockerd confines no container, and does not say so (moby,
# pkg/apparmor: HostSupports). A minimal Debian has no time zones, no ip and ss, no Python, which
# reads NVML, and no procps, whose kill is what docker.service is reloaded with.
NETWORK = ("iproute2",)
_SYSTEM = ("apparmor", *AUTHORITIES, *NETWORK, "procps", "python3", "tzdata")


def system(settings: Settings) -> tuple[str, ...]:
    """What every server has, in one go with what its services need: apt takes a second and more to
    begin with anything."""
    updates = ["unattended-upgrades"] if settings.system.unattended_upgrades else []
    stack = _STACK if settings.services else ()
    return (*_SYSTEM, *updates, *stack)


def gateway(settings: Settings) -> tuple[str, ...]:
    """What nginx as a gateway needs."""
    return (*_GATEWAY, *(METRICS if settings.gateway.metrics_port else ()))


def host_packages(host: SiteHost, distribution: str, version: str) -> Iterator[str]:
    """Names, or name=version, of all that the deploy may install on a host of a release.

    The driver of GPUs is not among them: which one it is, the GPUs decide.
    """
    settings = host.settings
    if host.role is Role.APP_SERVER:
        yield from AUTHORITIES
        yield from NETWORK if settings.network.addresses else ()
        yield from FIREWALL if settings.firewall.enabled and settings.app_server.firewall else ()
        return
    # The clock's daemon is installed only where there is none.
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
    """Where some of these come from, beside the distribution's own repositories."""
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
