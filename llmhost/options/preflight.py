"""`preflight_*`: what a host must offer before anything on it is changed."""

from pydantic import Field

from llmhost.options.base import Section


class Preflight(Section):
    """Minimum resources; a host below them is refused with the reason."""

    min_memory_gib: float = Field(default=4.0, gt=0)
    """Least physical memory in GiB."""

    min_free_disk_gib: float = Field(default=20.0, ge=0)
    """Least free space in GiB on every file system that holds images and layers; with 0 nobody
    looks whether what is to be baked will fit either."""

    max_clock_skew_seconds: float = Field(default=60.0, gt=0)
    """Largest difference between the controller's clock and the host's. Package signatures,
    certificates and key expiry all depend on the clock."""
