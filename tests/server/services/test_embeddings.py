"""Embedding and reranking models, without the gateway."""

from math import isclose, sqrt

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services.api import Api, api_of
from llmhost.options.model import Model
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def api(host: Host, settings: Settings) -> Api:
    return api_of("embeddings", host, settings)


def _models(settings: Settings, task: str) -> list[Model]:
    found = [model for model in settings.models_of("embeddings") if model.task == task]
    return found or does_not_apply(f"no model of embeddings has task = '{task}'")


def _embedding(api: Api, model: Model, text: str) -> list[float]:
    answer = api.ask("/v1/embeddings", {"model": model.name, "input": text})
    return [float(each) for each in answer["data"][0]["embedding"]]


def test_models_are_offered_under_their_declared_names(api: Api, settings: Settings) -> None:
    names = {each["id"] for each in api.ask("/v1/models")["data"]}
    assert names == {model.name for model in settings.models_of("embeddings")}


def test_equal_texts_have_equal_vectors_and_others_do_not(api: Api, settings: Settings) -> None:
    for model in _models(settings, "embed"):
        one, same, other = (_embedding(api, model, text) for text in ("a cat", "a cat", "the sea"))
        assert all(isclose(a, b, abs_tol=1e-4) for a, b in zip(one, same, strict=True))
        assert isclose(sqrt(sum(each * each for each in one)), 1, abs_tol=1e-3)
        assert sum(a * b for a, b in zip(one, other, strict=True)) < 0.9999


def test_long_texts_are_embedded_completely(api: Api, settings: Settings) -> None:
    for model in _models(settings, "embed"):
        # Two thirds of the context, in words of one letter, which are few tokens.
        assert _embedding(api, model, "a " * (model.context_tokens * 2 // 3))


def test_texts_are_ordered_by_relevance(api: Api, settings: Settings) -> None:
    documents = ["A cat is an animal.", "The sea is deep.", "Copenhagen is a city."]
    for model in _models(settings, "rerank"):
        body = {"model": model.name, "query": "What is a cat?", "documents": documents}
        results = api.ask("/v1/rerank", body)["results"]
        assert sorted(each["index"] for each in results) == [0, 1, 2]
        assert len({each["relevance_score"] for each in results}) == 3


def test_undeclared_model_is_unknown(api: Api) -> None:
    assert api.status("/v1/embeddings", {"model": "no-such-model", "input": "a"}) in (400, 404)
