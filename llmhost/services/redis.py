"""Redis: a cache in memory for the other services."""

from collections.abc import Sequence
from typing import Annotated

from llmhost.options.types import Flag, Image, MemorySize, whole
from llmhost.services.base import Service, ServiceOptions


class RedisOptions(ServiceOptions):
    """`redis_*`."""

    image: Image = (
        "docker.io/library/redis:8.8.1-alpine"
        "@sha256:8096655e437712b07503796fb64d81359256cfcff0ab29d95a7da72863786efb"
    )
    """Image of the server, pinned by digest. It must contain `redis-server` and `redis-cli`."""

    memory_limit: MemorySize | None = "1g"
    """Memory limit of the container, such as `16g`; none: no limit."""

    memory_mib: Annotated[int, whole(16, 2**24, "MiB", 512)] = 512
    """Maximum memory for data; after that Redis evicts the least recently used data."""

    persistent: Flag = False
    """Keep the data across restarts, in the volume `redis-data`."""


class Redis(Service[RedisOptions]):
    """A cache, or a store if it is persistent."""

    def data_volumes(self, options: RedisOptions) -> Sequence[str]:
        """None of a cache."""
        return ("redis-data",) if options.persistent else ()


# No route: only other services can reach it, without a password. Several public projects pin the
# digest of the default image for its tag.
SERVICE = Redis(name="redis", options=RedisOptions, container_port=6379)
