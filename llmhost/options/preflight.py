"""`preflight_*`: requirements that a host must meet before a deploy changes it."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import Gib, SomeGib, number


class Preflight(Section):
    """Minimum resources. A deploy refuses a host with less and reports the reason."""

    min_memory_gib: SomeGib = 4.0
    """Minimum physical memory."""

    min_free_disk_gib: Gib = 20.0
    """Minimum free space on each file system with images and layers; 0 also skips the check that
    the images will fit."""

    max_clock_skew_seconds: Annotated[float, number(0, 86_400, "seconds", 60.0, above=True)] = 60.0
    """Maximum difference between the clocks of controller and host. Package signatures,
    certificates and the expiry of keys depend on the clock."""
