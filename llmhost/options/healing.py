"""`healing_*`: restarts of containers that are unhealthy or do not run."""

from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.types import Flag, whole


class Healing(Section):
    """Docker restarts a container that exits, but not one that is unhealthy or that it could not
    start, such as one whose GPU was missing at boot. A timer on the host restarts and starts these
    containers of the stack. It leaves alone services that an operator stopped."""

    enabled: Flag = True
    """Restart unhealthy containers, and start those that should run and do not. On hosts with GPUs,
    services may need it to come back after a reboot."""

    interval_seconds: Annotated[int, whole(10, 3600, "seconds", 60)] = 60
    """Time between two checks."""

    restarts_per_hour: Annotated[int, whole(1, 60, "restarts", 3)] = 3
    """Maximum restarts of one container in an hour; after that it stays as it is until an operator
    intervenes. A container that cannot be started is tried again after growing pauses of up to 15
    minutes."""
