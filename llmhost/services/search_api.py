"""search_api: hybrid search in documents, by vectors and words (files/images/search_api)."""

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
    """Image of Python 3.11 or newer with pip, pinned by digest."""

    port: LocalPort = 8090
    """Port on 127.0.0.1 of the host."""

    memory_limit: MemorySize | None = "1g"
    """Memory limit of the container, such as `16g`; none: no limit."""

    package_index: IndexUrl | None = None
    """Package index for the image build, as pip's `index-url`; none: PyPI. pip installs only files
    with the locked hashes."""

    qdrant_url: EngineUrl = "http://qdrant:6333"
    """URL of Qdrant. A host without a dot is a service of the stack and must be declared."""

    redis_url: RedisUrl = "redis://redis:6379/0"
    """URL of Redis, which caches answers; searches work without it."""

    embeddings_url: EngineUrl = "http://embeddings:8080/v1"
    """Base URL of an OpenAI-compatible API that embeds."""

    embedding_model: ModelName = "embedding"
    """Name of the embedding model. After a change, add all documents again, to another
    collection."""

    collection: Annotated[
        str, text(r"[\w-]{1,64}", "up to 64 letters, digits, hyphens, underscores", "documents")
    ] = "documents"
    """Qdrant collection for the documents; it is created if it does not exist."""

    candidates: Annotated[int, whole(1, 10_000, "documents", 100)] = 100
    """Documents of each ranking that are fused."""

    cache_seconds: KeepSeconds = 300
    """How long an answer is cached; 0: not at all. A change of a document invalidates the cache."""

    @property
    def needed_services(self) -> tuple[str, ...]:
        """Services of the stack in its URLs."""
        return services_in((self.qdrant_url, self.redis_url, self.embeddings_url))


class SearchApi(Service[SearchApiOptions]):
    """A Python program; the build of its image installs packages from an index."""

    def context(self, options: SearchApiOptions, _models: Sequence[Model]) -> Iterator[File]:
        """pip's index for the build of the image."""
        index = f"index-url = {options.package_index}\n" if options.package_index else ""
        yield File("pip.conf", f"[global]\n{index}")


# Metrics are for the host's own Prometheus: no route. Several public projects pin the digest of the
# default image for its tag.
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
