"""Chroma: a vector store for the other services."""

from pydantic import Field

from llmhost.services.base import IMAGE, Service, ServiceOptions


class ChromaOptions(ServiceOptions):
    """`chroma_*`."""

    image: str = Field(
        default="docker.io/chromadb/chroma:1.5.9"
        "@sha256:1e0b73a187a28757c572acba508c46f48c9e8b0acaf5c20e6d95cdedce1acdf6",
        pattern=IMAGE,
    )
    """Image of the server, pinned by digest: `registry/name:tag@sha256:…`. It must hold `chroma` on
    the PATH, and bash. The default's digest is the one that several public projects pin for this
    tag."""

    memory_limit: str | None = Field(default="4g", pattern=r"^\d+[kmg]$")
    """Most memory the container may use, such as `16g`; none: no limit."""

    open_files: int = Field(default=65535, ge=1024, le=1048576)
    """Files that it may have open at once; each collection is many, and Docker 29 allows 1024. A
    host that allows Docker less needs less here."""


# No route: nobody but the other services may ask it. Collections are kept in the volume
# `chroma-data`. Chroma's default embedder runs in its clients, which have to bring a model.
SERVICE = Service(name="chroma", options=ChromaOptions, container_port=8000)
