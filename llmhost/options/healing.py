"""`healing_*`: restarts of containers that run and are not well."""

from pydantic import Field

from llmhost.options.base import Section


class Healing(Section):
    """Docker restarts a container that ends, and never one whose health check fails: a timer of the
    host does. The stack's containers only."""

    enabled: bool = True
    """Restart unhealthy containers."""

    interval_seconds: int = Field(default=60, ge=10, le=3600)
    """How often the containers' health is looked at."""

    restarts_per_hour: int = Field(default=3, ge=1, le=60)
    """Most restarts of one container within an hour; beyond that it is left as it is, for somebody
    to look at."""
