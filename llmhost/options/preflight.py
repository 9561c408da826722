"""`preflight_*`: what a host must have before anything on it is changed."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import Gib, SomeGib, number


class Preflight(Section):
    """Minimum resources; a host with less is refused, and the reason is reported."""

    min_memory_gib: SomeGib = 4.0
    """Least physical memory in GiB."""

    min_free_disk_gib: Gib = 20.0
    """Least free space in GiB on every file system that holds images and layers; 0 also skips the
    check whether the images to build will fit."""

    max_clock_skew_seconds: Annotated[float, number(0, 86_400, "seconds", 60.0, above=True)] = 60.0
    """Largest difference between the controller's clock and the host's. Package signatures,
    certificates and the expiry of keys all depend on the clock."""
