"""Packages of Docker Engine with compose and buildx, by distribution."""

from collections.abc import Mapping
from dataclasses import dataclass

from llmhost.system.apt_repository import KEYRINGS, Repository

DISTRIBUTION = "distribution"
DOCKER = "docker"


@dataclass(frozen=True)
class EnginePackages:
    """`pinned` are packages with the engine's version, `others` complete it; `conflicting` are
    packages of another source with the same files."""

    pinned: tuple[str, ...]
    others: tuple[str, ...]
    conflicting: tuple[str, ...]

    @property
    def wanted(self) -> tuple[str, ...]:
        return (*self.pinned, *self.others)


_OF_DOCKER = (
    "docker-ce",
    "docker-ce-cli",
    "docker-ce-rootless-extras",
    "docker-buildx-plugin",
    "docker-compose-plugin",
    "containerd.io",
)

# https://docs.docker.com/engine/install/debian/#uninstall-old-versions, and packages that Debian 13
# and Ubuntu split off since then: they own the same paths as Docker's packages.
_OF_DISTRIBUTIONS = (
    "docker.io",
    "docker-cli",
    "docker-buildx",
    "docker-compose",
    "docker-compose-v2",
    "docker-doc",
    "containerd",
    "runc",
)

_UBUNTU = EnginePackages(
    ("docker.io",),
    ("docker-compose-v2", "docker-buildx"),
    (*_OF_DOCKER, "podman-docker"),
)

_BY_DISTRIBUTION: Mapping[tuple[str, str], EnginePackages] = {
    # Debian 12 has compose 1 and no buildx, also in its backports.
    ("debian", "13"): EnginePackages(
        ("docker.io", "docker-cli"),
        ("docker-compose", "docker-buildx"),
        (*_OF_DOCKER, "podman-docker"),
    ),
    # 22.04 and 24.04 have docker-compose-v2 and docker-buildx in their -updates.
    ("ubuntu", "22.04"): _UBUNTU,
    ("ubuntu", "24.04"): _UBUNTU,
    ("ubuntu", "26.04"): _UBUNTU,
}

_DOCKER_CE = EnginePackages(
    ("docker-ce", "docker-ce-cli"),
    ("containerd.io", "docker-buildx-plugin", "docker-compose-plugin"),
    (*_OF_DISTRIBUTIONS, "podman-docker"),
)
_DOCKER_DISTRIBUTIONS = frozenset({("debian", "12"), *_BY_DISTRIBUTION})

ALL_NAMES = (*_OF_DOCKER, *_OF_DISTRIBUTIONS, "podman-docker")
"""All packages in the tables: a fact must read them before the source is known."""


def engine_packages(source: str, distribution: str, version: str) -> EnginePackages | None:
    """The packages of a source for os-release's ID and VERSION_ID; none: see `unsupported`."""
    if source == DISTRIBUTION:
        return _BY_DISTRIBUTION.get((distribution, version))
    return _DOCKER_CE if (distribution, version) in _DOCKER_DISTRIBUTIONS else None


def unsupported(source: str, distribution: str, version: str) -> str:
    """Why a source does not support a distribution, and what to do; empty if it does."""
    if engine_packages(source, distribution, version):
        return ""
    if source == DISTRIBUTION and engine_packages(DOCKER, distribution, version):
        return (
            f"{distribution} {version} has no packages of compose 2 and buildx:"
            ' set docker_source = "docker"'
        )
    return (
        f"Docker Engine is not available for {distribution} {version}:"
        " use Debian 12, 13 or Ubuntu LTS"
    )


def other_engine(source: str) -> str:
    """The engine's package of the other source."""
    return "docker-ce" if source == DISTRIBUTION else "docker.io"


def docker_repository(
    url: str, key_fingerprint: str, key: bytes | None, distribution: str, codename: str
) -> Repository:
    """Docker's repository for a distribution, or a mirror of it at `url`."""
    return Repository(
        label="docker",
        uri=f"{url.rstrip('/')}/{distribution}",
        suite=codename,
        components=("stable",),
        fingerprint=key_fingerprint,
        key_url=f"{url.rstrip('/')}/{distribution}/gpg",
        key=key,
        # Paths in Docker's instructions, current and earlier ones.
        replaces=("/etc/apt/sources.list.d/docker.list", f"{KEYRINGS}/docker.asc"),
    )
