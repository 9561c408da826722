"""References of images, and which of a registry's tags are newer ones of the same kind. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NUMBER = re.compile(r"\d+")
_HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True)
class Reference:
    """An image: `registry` as in references, such as `docker.io`, `host` the one to ask."""

    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def host(self) -> str:
        return _HUB_HOST if self.registry == _HUB else self.registry

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"


def parse(reference: str) -> Reference:
    """A reference as Docker reads it: without a registry, it is one of Docker Hub."""
    place, _, digest = reference.partition("@")
    first, slash, rest = place.partition("/")
    named = slash and (set(first) & {".", ":"} or first == "localhost")
    registry, path = (first, rest) if named else (_HUB, place)
    repository, _, tag = path.partition(":")
    if registry in (_HUB, "index.docker.io"):
        registry = _HUB
        repository = repository if "/" in repository else f"library/{repository}"
    return Reference(registry, repository, tag, digest)


def newest(tag: str, tags: Iterable[str]) -> str:
    """The newest tag that differs from this one in its numbers only; empty if none is newer.

    `server-cuda-b11176` is followed by `server-cuda-b11200`, and not by `server-b11200`; a release
    candidate has a word more than a release.
    """
    kind, version = _NUMBER.sub("#", tag), _numbers(tag)
    later = [each for each in tags if _NUMBER.sub("#", each) == kind and _numbers(each) > version]
    return max(later, key=_numbers) if version and later else ""


def _numbers(tag: str) -> tuple[int, ...]:
    return tuple(map(int, _NUMBER.findall(tag)))
