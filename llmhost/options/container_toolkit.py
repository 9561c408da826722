"""`container_toolkit_*`: the NVIDIA Container Toolkit, which makes GPUs available to containers."""

import re
from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.kind import Kind, Mistake
from llmhost.options.types import Fingerprint, RepositoryUrl, text

FLOOR = "1.19.1-1"
"""The first version without CVE-2026-24260."""

_VERSION = text(r"\d+\.\d+\.\d+-\d+", "a version of the packages", "1.20.1-1")


def _safe(value: object) -> object:
    found = str(_VERSION.read(value))
    if vulnerable(found):
        raise Mistake(
            f"is below {FLOOR}, the first version without CVE-2026-24260; write {FLOOR} or newer"
        )
    return found


def vulnerable(version: str) -> str:
    """Why a version of the toolkit has known holes, or nothing."""
    if _numbers(version) >= _numbers(FLOOR):
        return ""
    return (
        f"toolkit {version} has known vulnerabilities: {FLOOR} is the first version without"
        " CVE-2026-24260"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


class ContainerToolkit(Section):
    """Source of the toolkit. A host without an NVIDIA GPU does not change."""

    version: Annotated[str, Kind(_safe, _VERSION.expected, _VERSION.example)] = "1.20.1-1"
    """Version of all four packages, such as `1.20.1-1`."""

    repository_url: RepositoryUrl = "https://nvidia.github.io/libnvidia-container/stable/deb"
    """Base URL of the repository, without the directory of the architecture."""

    key_url: RepositoryUrl = "https://nvidia.github.io/libnvidia-container/gpgkey"
    """URL of the repository's signing key; its fingerprint must match."""

    repository_fingerprint: Fingerprint = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
    """Fingerprint of the signing key."""
