"""`healing_*`: restarts of containers that run but are unhealthy."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import Flag, whole


class Healing(Section):
    """Docker restarts a container that exits, but not one whose health check fails: a timer on the
    host restarts those of the stack."""

    enabled: Flag = True
    """Restart unhealthy containers."""

    interval_seconds: Annotated[int, whole(10, 3600, "seconds", 60)] = 60
    """How often the health of the containers is checked."""

    restarts_per_hour: Annotated[int, whole(1, 60, "restarts", 3)] = 3
    """Most restarts of one container within an hour; beyond that it is left as it is, for an
    operator to look at."""
