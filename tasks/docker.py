"""Docker: the engine, its configuration, and its daemon."""

from llmhost.docker.containerd import CONFIG
from llmhost.operations import audit, containerd, docker, systemd
from llmhost.operations.component import component
from llmhost.resources import FILES, script
from llmhost.settings import Settings

_KEY = FILES / "docker/docker.asc"
# Not by a daemon that was started with other arguments than those on disk.
_ANSWERS = script("docker/network_api.sh")

_AUDITED = (
    *("/usr/bin/dockerd", "/usr/bin/containerd", "/usr/bin/containerd-shim"),
    *("/usr/bin/containerd-shim-runc-v1", "/usr/bin/containerd-shim-runc-v2", "/usr/bin/runc"),
    *("/usr/sbin/runc", "/usr/sbin/dockerd", "/run/containerd", "/run/containerd/containerd.sock"),
    *("/etc/docker", "/etc/docker/daemon.json", "/etc/default/docker"),
    *("/etc/containerd/config.toml", "/usr/lib/systemd/system/docker.service"),
    "/usr/lib/systemd/system/docker.socket",
)


@component("Docker")
def install_docker(settings: Settings) -> None:
    """Docker Engine with compose and buildx, configured before its first start."""
    docker.engine(
        settings.docker.source,
        name="Install Docker Engine",
        version=settings.docker.version,
        repository_url=settings.docker.repository_url,
        key_fingerprint=settings.docker.repository_key_fingerprint,
        key=_KEY.read_bytes(),
    )
    systemd.without_overrides(
        "containerd.service",
        "docker.socket",
        "docker.service",
        known=settings.system.accepted_overrides,
        name="Remove overrides of Docker's units",
    )
    containerd.rooted(
        settings.docker.data_root,
        settings.docker.containerd_root,
        name="Keep containerd's data beside Docker's",
    )
    docker.daemon(
        settings.docker.daemon_config(),
        harden=settings.system.hardening != "off",
        name="Configure the Docker daemon",
    )
    docker.guarded(
        settings.firewall.enabled, name="Keep ufw's rules for containers ahead of Docker's"
    )
    # The daemon depends on these units.
    systemd.service("containerd.service", newer_than=[CONFIG], name="Run containerd")
    systemd.service("docker.socket", others=["docker.service"], name="Offer Docker's socket")
    docker.api_socket(name="Restrict Docker's API to root and the group docker")
    systemd.service(
        "docker.service",
        name="Run the Docker daemon with its configuration",
        newer_than=[docker.CONFIG, CONFIG, *docker.OVERRIDES],
        question=_ANSWERS,
        afterwards=docker.SETTLE,
    )
    paths = (*_AUDITED, settings.docker.data_root) if settings.system.hardening == "cis" else ()
    audit.watched(*paths, component="docker", name="Audit changes to Docker")
