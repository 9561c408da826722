"""search_api: hybrid search over documents, by meaning and by words (files/images/search_api)."""

from collections.abc import Iterator, Sequence
from typing import Annotated

from llmhost.options.model import Model
from llmhost.options.types import (
    EngineUrl,
    Image,
    IndexUrl,
    KeepSeconds,
    LocalPort,
    MemorySize,
    ModelName,
    RedisUrl,
    text,
    whole,
)
from llmhost.services.addresses import services_in
from llmhost.services.base import Route, Service, ServiceOptions
from llmhost.system.files import File


class SearchApiOptions(ServiceOptions):
    """`search_api_*`."""

    image: Image = (
        "docker.io/library/python:3.13-slim-trixie"
        "@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285"
    )
    """Image of Python 3.11 or newer with pip, pinned by digest: `registry/name:tag@sha256:…`. The
    default's digest is one that several public projects pin for this tag."""

    port: LocalPort = 8090
    """Port on 127.0.0.1 of the host."""

    memory_limit: MemorySize | None = "1g"
    """Most memory that the container may use, such as `16g`; none: no limit."""

    package_index: IndexUrl | None = None
    """Index that the Python packages come from while the image is built, as pip's `index-url`;
    none: PyPI. Only files with the locked hashes are installed from it."""

    qdrant_url: EngineUrl = "http://qdrant:6333"
    """URL of Qdrant. A host without a dot is a service of the stack, which must then be
    declared."""

    redis_url: RedisUrl = "redis://redis:6379/0"
    """URL of Redis, which caches answers; searches work without it."""

    embeddings_url: EngineUrl = "http://embeddings:8080/v1"
    """Base of an OpenAI-compatible interface that embeds."""

    embedding_model: ModelName = "embedding"
    """Name of the model that embeds documents and questions. After a change, every document must
    be added again, to another collection."""

    collection: Annotated[
        str, text(r"[\w-]{1,64}", "up to 64 letters, digits, hyphens, underscores", "documents")
    ] = "documents"
    """Collection of Qdrant that holds the documents; it is created if it is missing."""

    candidates: Annotated[int, whole(1, 10_000, "documents", 100)] = 100
    """Number of documents of each ranking that are fused."""

    cache_seconds: KeepSeconds = 300
    """How long an answer is cached; 0: not at all. A changed document ends it at once."""

    @property
    def needed_services(self) -> tuple[str, ...]:
        """Those that its addresses name."""
        return services_in((self.qdrant_url, self.redis_url, self.embeddings_url))


class SearchApi(Service[SearchApiOptions]):
    """A Python program whose image is built with packages from an index."""

    def context(self, options: SearchApiOptions, _models: Sequence[Model]) -> Iterator[File]:
        """Where pip looks while the image is built."""
        index = f"index-url = {options.package_index}\n" if options.package_index else ""
        yield File("pip.conf", f"[global]\n{index}")


# Metrics are for the host's own Prometheus: no route.
SERVICE = SearchApi(
    name="search_api",
    options=SearchApiOptions,
    container_port=8000,
    routes=(
        Route("/v1/search", ("POST",)),
        Route("/v1/documents", ("PUT",), "admin"),
        Route("/v1/documents/delete", ("POST",), "admin"),
        Route("/openapi.json", ("GET",)),
        Route("/health", ("GET",)),
    ),
)
