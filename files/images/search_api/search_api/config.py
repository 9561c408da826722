"""What the service is told by its environment; the Compose file sets all of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Config:
    """Addresses of the other services, and the search's defaults."""

    qdrant_url: str
    redis_url: str
    embeddings_url: str
    embedding_model: str
    collection: str = "documents"
    candidates: int = 100
    cache_seconds: int = 300
    timeout_seconds: float = 30.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Raises KeyError for an address that is not given."""
        return cls(
            qdrant_url=environment["QDRANT_URL"],
            redis_url=environment["REDIS_URL"],
            embeddings_url=environment["EMBEDDINGS_URL"].rstrip("/"),
            embedding_model=environment["EMBEDDING_MODEL"],
            collection=environment.get("SEARCH_COLLECTION", cls.collection),
            candidates=int(environment.get("SEARCH_CANDIDATES", cls.candidates)),
            cache_seconds=int(environment.get("SEARCH_CACHE_SECONDS", cls.cache_seconds)),
            timeout_seconds=float(environment.get("SEARCH_TIMEOUT_SECONDS", cls.timeout_seconds)),
        )
