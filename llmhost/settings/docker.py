"""`docker_*`: Docker Engine."""

from ipaddress import IPv4Network
from typing import Literal

from pydantic import Field

from llmhost.settings.base import Section


class Docker(Section):
    """Where the engine comes from and how its daemon is configured."""

    source: Literal["distribution", "docker"] = "distribution"
    """`distribution`: the packages of Debian or Ubuntu. `docker`: Docker's own repository."""

    version: str | None = None
    """Exact version of the engine's package to install and hold; none: what the source offers."""

    repository_url: str = "https://download.docker.com/linux"
    """Base of Docker's repository, for `docker_source = "docker"`; a site's mirror goes here."""

    data_root: str = Field(default="/var/lib/docker", pattern=r"^/[^\s]+$")
    """Directory for images, containers and volumes."""

    log_max_size_mib: int = Field(default=50, ge=1)
    """A container's log file is rotated at this size."""

    log_max_files: int = Field(default=3, ge=1)
    """Log files kept for each container."""

    address_pool: IPv4Network = IPv4Network("172.28.0.0/14")
    """Private range that container networks are cut from; it must not overlap the site's own."""

    address_pool_prefix: int = Field(default=24, ge=16, le=28)
    """Prefix length of each container network."""

    registry_mirrors: tuple[str, ...] = ()
    """Mirrors asked before Docker Hub, as URLs."""

    insecure_registries: tuple[str, ...] = ()
    """Registries (`host:port`) that may be reached without TLS. For closed networks only."""

    daemon_options: dict[str, object] = Field(default_factory=dict)
    """Further keys of daemon.json; they override what llmhost sets."""
