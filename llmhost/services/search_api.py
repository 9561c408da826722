"""search_api: hybrid search over documents, by meaning and by words (files/images/search_api)."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from llmhost.options.model import Model
from llmhost.services.addresses import URL, services_in
from llmhost.services.base import IMAGE, Route, Service, ServiceOptions
from llmhost.system.files import File


class SearchApiOptions(ServiceOptions):
    """`search_api_*`."""

    image: str = Field(
        default="docker.io/library/python:3.13-slim-trixie"
        "@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285",
        pattern=IMAGE,
    )
    """Image of Python 3.11 or newer with pip, pinned by digest: `registry/name:tag@sha256:…`. The
    default's digest is one that several public projects pin for this tag."""

    port: int = Field(default=8090, ge=1024, le=65535)
    """Port on 127.0.0.1 of the host."""

    memory_limit: str | None = Field(default="1g", pattern=r"^\d+[kmg]$")
    """Most memory the container may use, such as `16g`; none: no limit."""

    package_index: str | None = Field(default=None, pattern=r"^https?://[^\s@]+$")
    """Index that the Python packages come from while the image is built, as pip's `index-url`;
    none: PyPI. Whatever it is, only files with the locked hashes are installed."""

    qdrant_url: str = Field(default="http://qdrant:6333", pattern=URL)
    """Qdrant. A host without a dot is a service of the stack, which then has to be declared."""

    redis_url: str = Field(default="redis://redis:6379/0", pattern=r"^redis://[\w.:\[\]/-]+$")
    """Redis, for answers that are asked for again; a search goes on without it."""

    embeddings_url: str = Field(default="http://embeddings:8080/v1", pattern=URL)
    """Base of an OpenAI-compatible interface that embeds."""

    embedding_model: str = Field(default="embedding", pattern=r"^[\w./:-]+$")
    """Name of the model that embeds documents and questions. With another model every document has
    to be added again, to another collection."""

    collection: str = Field(default="documents", pattern=r"^[\w-]{1,64}$")
    """Collection of Qdrant that holds the documents; it is made where it is missing."""

    candidates: int = Field(default=100, ge=1, le=10_000)
    """How many documents of each ranking are fused."""

    cache_seconds: int = Field(default=300, ge=0)
    """For how long an answer is kept; 0: not at all. A changed document ends it at once."""

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
