"""`container_toolkit_*`: NVIDIA's container toolkit, which hands GPUs to containers."""

from pydantic import Field, field_validator

from llmhost.options.base import Section

FLOOR = "1.19.1-1"
"""The first version without CVE-2026-24260."""


class ContainerToolkit(Section):
    """Where the toolkit comes from. Nothing happens on a host without an NVIDIA GPU."""

    version: str = Field(default="1.20.1-1", pattern=r"^\d+\.\d+\.\d+-\d+$")
    """Version of all four packages, such as `1.20.1-1`; they must be equal."""

    repository_url: str = Field(
        default="https://nvidia.github.io/libnvidia-container/stable/deb",
        pattern=r"^https?://\S+[^/]$",
    )
    """Base of the toolkit's repository, above the directories of the architectures."""

    key_url: str = "https://nvidia.github.io/libnvidia-container/gpgkey"
    """Where the repository's key is fetched; it is used only if its fingerprint is right."""

    repository_fingerprint: str = Field(
        default="C95B321B61E88C1809C4F759DDCAE044F796ECB0", pattern=r"^[0-9A-F]{40}$"
    )
    """Fingerprint of the key that the repository is signed with."""

    @field_validator("version")
    @classmethod
    def _is_safe(cls, version: str) -> str:
        if _numbers(version) < _numbers(FLOOR):
            raise ValueError(f"is below {FLOOR}, the first version without CVE-2026-24260")
        return version


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.replace("-", ".").split("."))
