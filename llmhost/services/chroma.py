"""Chroma: a vector store for the other services."""

from collections.abc import Sequence

from llmhost.options.types import Image, MemorySize, OpenFiles
from llmhost.services.base import Service, ServiceOptions


class ChromaOptions(ServiceOptions):
    """`chroma_*`."""

    image: Image = (
        "docker.io/chromadb/chroma:1.5.9"
        "@sha256:1e0b73a187a28757c572acba508c46f48c9e8b0acaf5c20e6d95cdedce1acdf6"
    )
    """Image of the server, pinned by digest. It must contain bash, and `chroma` on the PATH."""

    memory_limit: MemorySize | None = "4g"
    """Memory limit of the container, such as `16g`; none: no limit."""

    open_files: OpenFiles = 65535
    """Limit of open files. Each collection needs many; Docker 29 allows 1024. Lower it on a host
    where Docker allows less."""


class Chroma(Service[ChromaOptions]):
    """A store of vectors and texts."""

    def data_volumes(self, _options: ChromaOptions) -> Sequence[str]:
        """Its collections."""
        return ("chroma-data",)


# No route: only other services can reach it. Collections are in the volume `chroma-data`. Chroma's
# default embedder runs in its clients, which need a model. Several public projects pin the digest
# of the default image for its tag.
SERVICE = Chroma(name="chroma", options=ChromaOptions, container_port=8000)
