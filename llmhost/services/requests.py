"""Requests to an OpenAI-compatible API, one for each task of models."""

from collections.abc import Callable

from llmhost.options.model import Model
from llmhost.services.base import Request


def completion(model: str) -> Request:
    """A few tokens, enough to use the weights."""
    return Request("/v1/completions", {"model": model, "prompt": "One, two,", "max_tokens": 8})


def embedding(model: str) -> Request:
    """One vector."""
    return Request("/v1/embeddings", {"model": model, "input": "One, two, three."})


def reranking(model: str) -> Request:
    """The order of two texts."""
    documents = ["Copenhagen is a city.", "A cat is an animal."]
    body = {"model": model, "query": "Where is Copenhagen?", "documents": documents}
    return Request("/v1/rerank", body)


REQUESTS: dict[str, Callable[[str], Request]] = {
    "generate": completion,
    "embed": embedding,
    "rerank": reranking,
}
"""A small request to a model, by its task."""


def task_request(model: Model) -> Request:
    """A request for the model's task."""
    return REQUESTS[model.task](model.name)
