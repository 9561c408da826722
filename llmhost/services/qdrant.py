"""Qdrant: a vector store for the other services."""

from pydantic import Field

from llmhost.services.base import IMAGE, Service, ServiceOptions


class QdrantOptions(ServiceOptions):
    """`qdrant_*`."""

    image: str = Field(
        default="docker.io/qdrant/qdrant:v1.19.1"
        "@sha256:12364fe851b9f17356fc88189fc06d1b521262e04659ec7345975b00c9246a10",
        pattern=IMAGE,
    )
    """Image of the server, pinned by digest: `registry/name:tag@sha256:…`. It must hold
    `/qdrant/qdrant` and bash. The default's digest is the one that several public projects pin for
    this tag."""

    memory_limit: str | None = Field(default="4g", pattern=r"^\d+[kmg]$")
    """Most memory the container may use, such as `16g`; none: no limit."""

    open_files: int = Field(default=65535, ge=1024, le=1048576)
    """Files that it may have open at once; each collection is many, and Docker 29 allows 1024. A
    host that allows Docker less needs less here."""


# No route: nobody but the other services may ask it, and they need no key. Collections are kept in
# the volume `qdrant-data`.
SERVICE = Service(name="qdrant", options=QdrantOptions, container_port=6333)
