"""Chroma: a vector store for the other services."""

from llmhost.options.types import Image, MemorySize, OpenFiles
from llmhost.services.base import Service, ServiceOptions


class ChromaOptions(ServiceOptions):
    """`chroma_*`."""

    image: Image = (
        "docker.io/chromadb/chroma:1.5.9"
        "@sha256:1e0b73a187a28757c572acba508c46f48c9e8b0acaf5c20e6d95cdedce1acdf6"
    )
    """Image of the server, pinned by digest: `registry/name:tag@sha256:…`. It must contain
    bash, and `chroma` on the PATH. The default's digest is the one that several public projects pin
    for this tag."""

    memory_limit: MemorySize | None = "4g"
    """Most memory that the container may use, such as `16g`; none: no limit."""

    open_files: OpenFiles = 65535
    """Files that it may have open at once: each collection needs many, and Docker 29 allows 1024.
    Set it lower on a host that allows Docker less."""


# No route: nobody but the other services may ask it. Collections are kept in the volume
# `chroma-data`. Chroma's default embedder runs in its clients, which have to bring a model.
SERVICE = Service(name="chroma", options=ChromaOptions, container_port=8000)
