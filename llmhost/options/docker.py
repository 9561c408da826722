"""`docker_*`: Docker Engine."""

import json
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmhost.options.base import Section
from llmhost.options.kind import Kind, Mistake
from llmhost.options.types import (
    Fingerprint,
    HostPath,
    Ipv4Network,
    Items,
    Mib,
    OneOf,
    PackageVersion,
    Registry,
    Url,
    whole,
)

# https://docs.docker.com/engine/install/debian/; a unit test compares files/docker/docker.asc.
DOCKER_KEY = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
DATA_ROOT = "/var/lib/docker"

WITHOUT_RULES: Mapping[str, tuple[object, str]] = {
    "iptables": (False, "Docker then makes no rules for containers, and does not start with icc"),
    "firewall-backend": ("nftables", "Docker then ignores the firewall's rules for containers"),
}
"""Values that others gave to keys, and why they cannot stay: Docker's own rules connect the
containers, and those of the firewall are in its chain DOCKER-USER. That `iptables` and `icc` are
both off, dockerd finds only when it starts, not with `--validate`."""


def without_rules(config: Mapping[str, Any]) -> dict[str, str]:
    """Sentences about keys whose values are in WITHOUT_RULES, by key."""
    return {
        key: f'"{key}": {json.dumps(value)}: {reason}'
        for key, (value, reason) in WITHOUT_RULES.items()
        if config.get(key) == value
    }


def _daemon_options(value: object) -> object:
    """Keys of daemon.json, with values that JSON can hold."""
    if not isinstance(value, dict):
        raise TypeError
    if not _is_json(value):
        raise Mistake(
            "has a key or a value that JSON cannot hold; write text, numbers, True, False, None,"
            " lists and mappings, such as {'mtu': 1400}"
        )
    # It also clashes with the -H of docker.service, which dockerd finds only when it starts.
    if "hosts" in value:
        raise Mistake(
            "must not set 'hosts', because the Docker API is for root on the host alone; remove it"
        )
    for sentence in without_rules(value).values():
        raise Mistake(f"must not have {sentence}; remove it")
    return value


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


class Docker(Section):
    """Source of Docker Engine, and the configuration of its daemon."""

    source: OneOf[Literal["distribution", "docker"]] = "distribution"
    """`distribution`: the packages of Debian or Ubuntu. `docker`: Docker's own repository."""

    version: PackageVersion | None = None
    """Exact version of the engine's package to install and hold; none: the version that the source
    offers."""

    repository_url: Url = "https://download.docker.com/linux"
    """Base URL of the repository, for `docker_source = "docker"`; set it to a mirror if the site
    has one."""

    repository_key_fingerprint: Fingerprint = DOCKER_KEY
    """Fingerprint of the repository's signing key. If it is not Docker's, the key is downloaded
    from `<repository_url>/<debian or ubuntu>/gpg`."""

    data_root: HostPath = DATA_ROOT
    """Directory for images, containers and volumes. If it is not Docker's default, containerd's
    data is in it, too. A host whose data is elsewhere is refused, with the steps to move it."""

    log_max_size_mib: Mib = 50
    """Size at which a container's log file is rotated."""

    log_max_files: Annotated[int, whole(1, 1000, "files", 3)] = 3
    """Log files to keep for each container."""

    address_pool: Ipv4Network = IPv4Network("172.28.0.0/14")
    """Private range for container networks; it must not overlap networks of the site."""

    address_pool_prefix: Annotated[int, whole(16, 28, example=24)] = 24
    """Prefix length of each container network."""

    registry_mirrors: Items[Url] = ()
    """URLs of mirrors to try before Docker Hub."""

    insecure_registries: Items[Registry] = ()
    """Registries (`host:port`) to use without TLS. For closed networks only."""

    daemon_options: Annotated[
        dict[str, object],
        Kind(_daemon_options, "a mapping of keys of daemon.json", {"mtu": 1400}),
    ] = Field(default_factory=dict)
    """Additional keys of daemon.json; they override those of llmhost."""

    @model_validator(mode="after")
    def _networks_fit_the_pool(self) -> Self:
        if self.address_pool_prefix < self.address_pool.prefixlen:
            raise Mistake(
                f"is {self.address_pool_prefix}, and the pool has only the prefix length"
                f" {self.address_pool.prefixlen}; write a longer prefix, or a larger address_pool",
                "address_pool_prefix",
            )
        return self

    @property
    def containerd_root(self) -> str:
        """containerd's directory; empty: as the host has it."""
        return "" if self.data_root == DATA_ROOT else f"{self.data_root}/containerd-root"

    def daemon_config(self) -> dict[str, Any]:
        """The keys of daemon.json that llmhost sets.

        No default ulimits: a container fails to start if they exceed the limits of the host's
        containerd. A service that needs more open files sets its own limit.
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
