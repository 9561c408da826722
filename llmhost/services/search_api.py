"""search_api: hybrid search in documents, by vectors and words (files/images/search_api)."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from llmhost.options.kind import WORD
from llmhost.options.model import Model
from llmhost.options.types import (
    AnyText,
    EngineUrl,
    Flag,
    Image,
    IndexUrl,
    KeepSeconds,
    LocalPort,
    MemorySize,
    ModelName,
    OneOf,
    Port,
    RedisUrl,
    Table,
    number,
    text,
    whole,
)
from llmhost.services.base import Page, Route, Service, UiOptions
from llmhost.system.files import File
from llmhost.system.pip import pip_configuration

Language = Literal[
    "none", "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek",
    "hungarian", "italian", "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish",
    "turkish", "detect",
]  # fmt: skip
FieldKind = Literal["keyword", "integer", "float", "boolean", "path"]
FieldName = Annotated[
    str, text(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "a key of the metadata", "lang", WORD)
]


class SearchApiOptions(UiOptions):
    """`search_api_*`."""

    image: Image = (
        "docker.io/library/python:3.13-slim-trixie"
        "@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285"
    )
    """Image of Python 3.11 or newer with pip, pinned by digest."""

    port: LocalPort = 8090
    """Port on 127.0.0.1 of the host."""

    ui_port: Port | None = None
    """Port of a web page to try queries; it asks for an API key. None: no page."""

    memory_limit: MemorySize | None = "1g"
    """Memory limit of the container, such as `16g`; none: no limit."""

    package_index: IndexUrl | None = None
    """Package index for the image build, as pip's `index-url`; none: PyPI. pip installs only files
    with the locked hashes."""

    workers: Annotated[int, whole(1, 64, "processes", 2)] = 1
    """Number of processes; one uses one processor core."""

    qdrant_url: EngineUrl = "http://qdrant:6333"
    """URL of Qdrant. A host without a dot is a service of the stack and must be declared."""

    redis_url: RedisUrl = "redis://redis:6379/0"
    """URL of Redis, which caches answers; searches work without it."""

    embeddings_url: EngineUrl = "http://embeddings:8080/v1"
    """Base URL of an OpenAI-compatible API that embeds."""

    embedding_model: ModelName = "embedding"
    """Name of the embedding model. After a change, all collections are re-embedded."""

    query_prefix: AnyText = ""
    """Text before each query, for models that require it, such as `query: `."""

    document_prefix: AnyText = ""
    """Text before each document, such as `passage: `."""

    expand: Flag = False
    """Whether the three best results of a search are added to its query and the search repeated:
    better answers for three to four times the processor time. A request can say otherwise."""

    rerank_model: ModelName | None = None
    """Name of a reranking model in the same service; none: results are not reranked."""

    rerank_top: Annotated[int, whole(1, 1000, "results", 30)] = 30
    """Number of best results that the reranking model reorders."""

    rerank_timeout_seconds: Annotated[float, number(0.01, 60, "seconds", 1.0)] = 1.0
    """Time budget for reranking; results that exceed it keep their order."""

    collection: Annotated[
        str,
        text(
            r"(?!.*--\d+$)[A-Za-z0-9_][\w-]{0,63}",  # names in Qdrant end so
            "up to 64 letters, digits, hyphens, underscores, without -- and a number at the end",
            "documents",
        ),
    ] = "documents"
    """Default collection; it is created if it does not exist."""

    language: OneOf[Language] = "english"
    """Language of new collections, for stems and stop words; `none` for Chinese, Japanese, Korean
    and mixed texts, `detect` for that of a collection's first documents."""

    fields: Table[FieldName, OneOf[FieldKind]] = Field(default_factory=dict)
    """Indexed metadata of new collections, for fast filters; a `path` has prefixes."""

    passage_characters: Annotated[int, whole(0, 100_000, "characters", 2000)] = 2000
    """Maximum length of a passage; longer documents are split. 0: never."""

    passage_overlap: Annotated[int, whole(0, 10_000, "characters", 200)] = 200
    """Characters that neighboring passages share."""

    candidates: Annotated[int, whole(1, 10_000, "documents", 30)] = 30
    """Documents of each ranking that are fused."""

    rrf_k: Annotated[int, whole(1, 10_000, example=60)] = 60
    """k of Reciprocal Rank Fusion: a larger k gives less weight to the first ranks."""

    meaning_weight: Annotated[float, number(0.01, 100, example=1.0)] = 1.0
    """Weight of the ranking by meaning."""

    words_weight: Annotated[float, number(0.01, 100, example=0.5)] = 1.0101
    """Weight of the ranking by words. The default lets words decide between equal ranks."""

    hnsw_ef: Annotated[int, whole(10, 10_000, "candidates", 128)] = 128
    """Candidates that Qdrant's index follows; more find more and take longer."""

    cache_seconds: KeepSeconds = 300
    """How long an answer is cached; 0: not at all. A change of a document invalidates the cache."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Those of Qdrant, Redis and the embeddings."""
        return (self.qdrant_url, self.redis_url, self.embeddings_url)


class SearchApi(Service[SearchApiOptions]):
    """A Python program; the build of its image installs packages from an index."""

    def context(self, options: SearchApiOptions, _models: Sequence[Model]) -> Iterator[File]:
        """pip's index for the build of the image."""
        yield pip_configuration(options.package_index)


_SEARCH = Route("/v1/search", ("POST",))
_COLLECTIONS = Route("/v1/collections", ("GET",))
_COLLECTION = Route("/v1/collections/{name}", ("GET",))

# Metrics are for the host's own Prometheus: no route. Several public projects pin the digest of the
# default image for its tag.
SERVICE = SearchApi(
    name="search_api",
    options=SearchApiOptions,
    container_port=8000,
    metrics_path="/metrics",
    routes=(
        _SEARCH,
        Route("/search/hybrid", ("POST",)),
        Route("/v1/documents", ("PUT",), "admin"),
        Route("/v1/documents/delete", ("POST",), "admin"),
        _COLLECTIONS,
        Route("/v1/collections", ("POST",), "admin"),
        _COLLECTION,
        Route("/v1/collections/{name}", ("DELETE",), "admin"),
        Route("/v1/collections/{name}/documents", ("PUT",), "admin"),
        Route("/v1/collections/{name}/reembed", ("POST",), "admin"),
        Route("/openapi.json", ("GET",)),
        Route("/health", ("GET",)),
    ),
    page=Page(("/", "/page.css", "/page.js"), (_SEARCH, _COLLECTIONS, _COLLECTION)),
)
