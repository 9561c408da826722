"""`uvicorn --factory search_api.main:app`: the service as its environment describes it."""

import fcntl
import logging
import os
import tempfile
from pathlib import Path

from fastapi import FastAPI
from qdrant_client import AsyncQdrantClient
from redis.asyncio import Redis

from search_api.app import create_app
from search_api.cache import Cache
from search_api.client import Client
from search_api.collections import Collections
from search_api.config import Config
from search_api.embeddings import EmbeddingModel, Embeddings
from search_api.qdrant import Queries
from search_api.reranker import Reranker
from search_api.search import Search
from search_api.store import Store


def app() -> FastAPI:
    """Connect to the services that the environment names."""
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request twice
    return create_app(connect(Config.from_environment()), renews=_is_first())


def _is_first() -> bool:
    """Whether this is the first process of the service; the lock ends with the process."""
    lock = os.open(Path(tempfile.gettempdir(), "search-api.lock"), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True


def connect(config: Config) -> Search:
    """The search over the services that the configuration names."""
    client = Client(config.timeout_seconds)
    # The server turns texts into keyword vectors, so the client must not try.
    qdrant = AsyncQdrantClient(
        config.qdrant_url,
        timeout=int(config.timeout_seconds),
        check_compatibility=False,
        cloud_inference=True,
    )
    # Shorter than a search: a cache that hangs must not cost more than it saves.
    redis = Redis.from_url(config.redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
    model = EmbeddingModel(config.embedding_model, config.query_prefix, config.document_prefix)
    collections = Collections(qdrant)
    return Search(
        Store(qdrant, Queries(client, config.qdrant_url), collections),
        collections,
        Embeddings(client, config.embeddings_url, model),
        Cache(redis, config.cache_seconds),
        default=config.collection,
        ranking=config.ranking,
        defaults=config.defaults,
        reranker=_reranker(client, config),
        rerank_top=config.rerank_top,
        expand=config.expand,
    )


def _reranker(client: Client, config: Config) -> Reranker | None:
    if not config.rerank_model:
        return None
    url, budget = config.embeddings_url, config.rerank_seconds
    return Reranker(client, url, config.rerank_model, budget)
