"""`uvicorn --factory search_api.main:app`: the service as its environment describes it."""

import logging

import httpx
from fastapi import FastAPI
from qdrant_client import AsyncQdrantClient
from redis.asyncio import Redis

from search_api.app import create_app
from search_api.cache import Cache
from search_api.config import Config
from search_api.embeddings import Embeddings
from search_api.search import Search
from search_api.store import Store


def app() -> FastAPI:
    """Connect to the services that the environment names."""
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request twice
    config = Config.from_environment()
    seconds = config.timeout_seconds
    http = httpx.AsyncClient(timeout=seconds)
    qdrant = AsyncQdrantClient(config.qdrant_url, timeout=int(seconds), check_compatibility=False)
    # Shorter than a search: a cache that hangs must not cost more than it saves.
    redis = Redis.from_url(
        config.redis_url, decode_responses=True, socket_timeout=0.5, socket_connect_timeout=0.5
    )
    return create_app(
        Search(
            Store(qdrant, config.collection),
            Embeddings(http, config.embeddings_url, config.embedding_model),
            Cache(redis, config.collection, config.cache_seconds),
            config.candidates,
        )
    )
