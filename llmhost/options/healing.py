"""`healing_*`: restarts of containers that run but are unhealthy."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import Flag, whole


class Healing(Section):
    """Docker restarts a container that exits, but not one that is unhealthy. A timer on the host
    restarts the unhealthy containers of the stack."""

    enabled: Flag = True
    """Restart unhealthy containers."""

    interval_seconds: Annotated[int, whole(10, 3600, "seconds", 60)] = 60
    """Time between two checks."""

    restarts_per_hour: Annotated[int, whole(1, 60, "restarts", 3)] = 3
    """Maximum restarts of one container in an hour; after that it stays unhealthy until an operator
    intervenes."""
