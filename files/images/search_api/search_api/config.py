"""What the environment says; the Compose file sets all of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import orjson


@dataclass(frozen=True)
class Ranking:
    """How rankings are fused: a document's score is the sum of 1 / (k + rank / weight)."""

    k: int = 60
    """Cormack, Clarke and Buettcher: Reciprocal Rank Fusion outperforms Condorcet (SIGIR 2009)."""
    meaning_weight: float = 1.0
    words_weight: float = 1.0101
    """More than the other: between equal ranks in both rankings, words decide. No rank up to 10,000
    has the score of a rank of the other, so the order is always the same; with 1.01, 101 and 100
    had."""
    candidates: int = 30
    """Documents of each ranking."""
    hnsw_ef: int = 128
    """Candidates that Qdrant's index follows; more are slower and miss less."""


@dataclass(frozen=True)
class CollectionDefaults:
    """What a collection is created with, unless the request says otherwise."""

    language: str = "english"
    passage_characters: int = 2000
    passage_overlap: int = 200
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """Addresses of the other services, and defaults."""

    qdrant_url: str
    redis_url: str
    embeddings_url: str
    embedding_model: str
    query_prefix: str = ""
    document_prefix: str = ""
    expand: bool = False
    rerank_model: str = ""
    rerank_top: int = 30
    rerank_seconds: float = 1.0
    collection: str = "documents"
    cache_seconds: int = 300
    timeout_seconds: float = 30.0
    ranking: Ranking = field(default_factory=Ranking)
    defaults: CollectionDefaults = field(default_factory=CollectionDefaults)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Raises KeyError for a missing address."""

        def get(name: str, default: object) -> str:
            return environment.get(f"SEARCH_{name}", str(default))

        return cls(
            qdrant_url=environment["QDRANT_URL"],
            redis_url=environment["REDIS_URL"],
            embeddings_url=environment["EMBEDDINGS_URL"].rstrip("/"),
            embedding_model=environment["EMBEDDING_MODEL"],
            query_prefix=get("QUERY_PREFIX", cls.query_prefix),
            document_prefix=get("DOCUMENT_PREFIX", cls.document_prefix),
            expand=get("EXPAND", cls.expand).lower() == "true",
            rerank_model=get("RERANK_MODEL", cls.rerank_model),
            rerank_top=int(get("RERANK_TOP", cls.rerank_top)),
            rerank_seconds=float(get("RERANK_SECONDS", cls.rerank_seconds)),
            collection=get("COLLECTION", cls.collection),
            cache_seconds=int(get("CACHE_SECONDS", cls.cache_seconds)),
            timeout_seconds=float(get("TIMEOUT_SECONDS", cls.timeout_seconds)),
            ranking=Ranking(
                k=int(get("RRF_K", Ranking.k)),
                meaning_weight=float(get("MEANING_WEIGHT", Ranking.meaning_weight)),
                words_weight=float(get("WORDS_WEIGHT", Ranking.words_weight)),
                candidates=int(get("CANDIDATES", Ranking.candidates)),
                hnsw_ef=int(get("HNSW_EF", Ranking.hnsw_ef)),
            ),
            defaults=CollectionDefaults(
                language=get("LANGUAGE", CollectionDefaults.language),
                passage_characters=int(
                    get("PASSAGE_CHARACTERS", CollectionDefaults.passage_characters)
                ),
                passage_overlap=int(get("PASSAGE_OVERLAP", CollectionDefaults.passage_overlap)),
                fields=orjson.loads(get("FIELDS", "{}")),
            ),
        )
