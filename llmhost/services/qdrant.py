"""Qdrant: a vector store for the other services."""

from llmhost.options.types import Image, MemorySize, OpenFiles
from llmhost.services.base import Service, ServiceOptions


class QdrantOptions(ServiceOptions):
    """`qdrant_*`."""

    image: Image = (
        "docker.io/qdrant/qdrant:v1.19.1"
        "@sha256:12364fe851b9f17356fc88189fc06d1b521262e04659ec7345975b00c9246a10"
    )
    """Image of the server, pinned by digest: `registry/name:tag@sha256:…`. It must contain
    `/qdrant/qdrant` and bash. The default's digest is the one that several public projects pin for
    this tag."""

    memory_limit: MemorySize | None = "4g"
    """Most memory that the container may use, such as `16g`; none: no limit."""

    open_files: OpenFiles = 65535
    """Files that it may have open at once: each collection needs many, and Docker 29 allows 1024.
    Set it lower on a host that allows Docker less."""


# No route: nobody but the other services may ask it, and they need no key. Collections are kept in
# the volume `qdrant-data`.
SERVICE = Service(name="qdrant", options=QdrantOptions, container_port=6333)
