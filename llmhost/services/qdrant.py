"""Qdrant: a vector store for the other services."""

from collections.abc import Sequence

from llmhost.options.types import Image, MemorySize, OpenFiles
from llmhost.services.base import Service, ServiceOptions


class QdrantOptions(ServiceOptions):
    """`qdrant_*`."""

    image: Image = (
        "docker.io/qdrant/qdrant:v1.19.1"
        "@sha256:12364fe851b9f17356fc88189fc06d1b521262e04659ec7345975b00c9246a10"
    )
    """Image of the server, pinned by digest. It must contain `/qdrant/qdrant` and bash."""

    memory_limit: MemorySize | None = "4g"
    """Memory limit of the container, such as `16g`; none: no limit."""

    open_files: OpenFiles = 65535
    """Limit of open files. Each collection needs many; Docker 29 allows 1024. Lower it on a host
    where Docker allows less."""


class Qdrant(Service[QdrantOptions]):
    """A store of vectors and texts."""

    def data_volumes(self, _options: QdrantOptions) -> Sequence[str]:
        """Its collections."""
        return ("qdrant-data",)


# No route: only other services can reach it, without a key. Collections are in the volume
# `qdrant-data`. Several public projects pin the digest of the default image for its tag.
SERVICE = Qdrant(name="qdrant", options=QdrantOptions, container_port=6333, metrics_path="/metrics")
