"""`docker_*`: Docker Engine."""

from ipaddress import IPv4Network
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from llmhost.options.base import Section

# https://docs.docker.com/engine/install/debian/, and files/docker/docker.asc, which the unit tests
# hold to it.
DOCKER_KEY = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"


class Docker(Section):
    """Where the engine comes from and how its daemon is configured."""

    source: Literal["distribution", "docker"] = "distribution"
    """`distribution`: the packages of Debian or Ubuntu. `docker`: Docker's own repository."""

    version: str | None = None
    """Exact version of the engine's package to install and hold; none: what the source offers."""

    repository_url: str = Field(
        default="https://download.docker.com/linux", pattern=r"^https?://[^\s]+$"
    )
    """Base of Docker's repository, for `docker_source = "docker"`; a site's mirror goes here."""

    repository_key_fingerprint: str = Field(default=DOCKER_KEY, pattern=r"^[0-9A-F]{40}$")
    """Fingerprint of the key that signs the repository, without spaces. Another than Docker's is
    fetched from the repository itself, at `<repository_url>/<debian or ubuntu>/gpg`."""

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

    @field_validator("daemon_options")
    @classmethod
    def _socket_stays_local(cls, options: dict[str, object]) -> dict[str, object]:
        # It also clashes with the -H of docker.service, which dockerd finds only when it starts.
        if "hosts" in options:
            raise ValueError("must not set 'hosts': the Docker API is for root on the host alone")
        return options

    @model_validator(mode="after")
    def _networks_fit_the_pool(self) -> Self:
        if self.address_pool_prefix < self.address_pool.prefixlen:
            raise ValueError("address_pool_prefix must not be shorter than that of address_pool")
        return self

    def daemon_config(self) -> dict[str, Any]:
        """The keys of daemon.json that llmhost sets.

        No default ulimits: a container fails to start when they exceed what the host's containerd
        may grant, so a service that needs more open files asks for them itself.
        """
        config: dict[str, Any] = {
            "data-root": self.data_root,
            "log-driver": "local",
            # dockerd takes log options as strings only.
            "log-opts": {
                "max-size": f"{self.log_max_size_mib}m",
                "max-file": f"{self.log_max_files}",
            },
            "live-restore": True,
            "default-address-pools": [
                {"base": str(self.address_pool), "size": self.address_pool_prefix}
            ],
            # Published ports bypass ufw. `ip` covers the default bridge alone, the option for new
            # networks those of compose; it came with Docker 24.0 (moby #43197).
            "ip": "127.0.0.1",
            "default-network-opts": {
                "bridge": {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}
            },
        }
        if self.registry_mirrors:
            config["registry-mirrors"] = list(self.registry_mirrors)
        if self.insecure_registries:
            config["insecure-registries"] = list(self.insecure_registries)
        return config | self.daemon_options
