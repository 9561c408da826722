"""Redis: a cache in memory for the other services."""

from pydantic import Field

from llmhost.services.base import IMAGE, Service, ServiceOptions


class RedisOptions(ServiceOptions):
    """`redis_*`."""

    image: str = Field(
        default="docker.io/library/redis:8.8.1-alpine"
        "@sha256:8096655e437712b07503796fb64d81359256cfcff0ab29d95a7da72863786efb",
        pattern=IMAGE,
    )
    """Image of the server, pinned by digest: `registry/name:tag@sha256:…`. It must hold
    `redis-server` and `redis-cli`. The default's digest is the one that several public projects pin
    for this tag."""

    memory_limit: str | None = Field(default="1g", pattern=r"^\d+[kmg]$")
    """Most memory the container may use, such as `16g`; none: no limit."""

    memory_mib: int = Field(default=512, ge=16)
    """Memory for the data; beyond it, what was asked for longest ago is dropped."""

    persistent: bool = False
    """Keep the data over restarts, in the volume `redis-data`."""


# No route: nobody but the other services may ask it, and they need no password.
SERVICE = Service(name="redis", options=RedisOptions, container_port=6379)
