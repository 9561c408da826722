"""The query language of Qdrant's REST interface, as objects of its core."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import qdrant_edge as edge

Json = Mapping[str, Any]


class BadRequest(Exception):
    """What the server answers with 400."""


def query_request(asked: Json) -> edge.QueryRequest:
    """A body of `points/query`."""
    using = asked.get("using") or ""
    return edge.QueryRequest(
        limit=asked.get("limit") or 10,
        offset=asked.get("offset") or 0,
        query=_scoring(asked.get("query"), using),
        prefetches=_prefetches(asked.get("prefetch")),
        filter=filter_of(asked.get("filter")),
        score_threshold=asked.get("score_threshold"),
        params=_params(asked.get("params")),
        with_payload=_selection(asked.get("with_payload"), False),
        with_vector=asked.get("with_vector") or False,
    )


def scroll_request(asked: Json) -> edge.ScrollRequest:
    """A body of `points/scroll`."""
    return edge.ScrollRequest(
        offset=asked.get("offset"),
        limit=asked.get("limit") or 10,
        filter=filter_of(asked.get("filter")),
        with_payload=_selection(asked.get("with_payload"), True),
        with_vector=asked.get("with_vector") or False,
    )


def _prefetches(asked: Any) -> list[edge.Prefetch]:
    found = asked if isinstance(asked, list) else [asked] if asked else []
    return [
        edge.Prefetch(
            limit=each.get("limit") or 10,
            query=_scoring(each.get("query"), each.get("using") or ""),
            prefetches=_prefetches(each.get("prefetch")),
            filter=filter_of(each.get("filter")),
            params=_params(each.get("params")),
            score_threshold=each.get("score_threshold"),
        )
        for each in found
    ]


def _scoring(query: Any, using: str) -> Any:
    if query is None:
        return None
    if isinstance(query, dict):
        if "rrf" in query:
            return edge.Fusion.Rrf(query["rrf"].get("k") or 2, query["rrf"].get("weights"))
        if query.get("fusion") == "rrf":
            return edge.Fusion.Rrf(2)
        query = query.get("nearest", query)
    return edge.Query.Nearest(vector_of(query, searched=True), using)


def vector_of(value: Any, searched: bool = False) -> Any:
    """A dense vector, a sparse one, or a text that the server embeds itself."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and "text" in value:
        if str(value.get("model")).lower() != "qdrant/bm25":
            raise BadRequest(f"No inference service for model {value.get('model')}")
        model = bm25(json.dumps(value.get("options") or {}))
        return (model.embed_query if searched else model.embed_document)(value["text"])
    if isinstance(value, dict) and "indices" in value:
        return edge.SparseVector(value["indices"], value["values"])
    raise BadRequest(f"unknown kind of vector: {str(value)[:80]}")


@lru_cache(maxsize=64)
def bm25(options: str) -> edge.Bm25:
    """The model with options as JSON."""
    given: dict[str, Any] = json.loads(options)
    if "stopwords" in given:
        given["stopwords"] = _stopwords(given["stopwords"])
    if given.get("stemmer") == {"type": "none"}:
        given["stemmer"] = edge.DisabledStemmer()
    if "tokenizer" in given:
        given["tokenizer"] = getattr(edge.TokenizerType, given["tokenizer"].title())
    try:
        return edge.Bm25(edge.Bm25Config(**given))
    except (TypeError, ValueError) as error:
        raise BadRequest(str(error)) from error


def _stopwords(given: Any) -> Any:
    if isinstance(given, str):
        return getattr(edge.Language, given.title())
    return edge.StopwordsSet(
        {getattr(edge.Language, name.title()) for name in given.get("languages") or ()},
        set(given.get("custom") or ()),
    )


def filter_of(asked: Any) -> edge.Filter | None:
    """Conditions that all, some or none of which a point has to meet."""
    if not asked:
        return None
    parts: dict[str, Any] = {
        key: [_condition(each) for each in (found if isinstance(found, list) else [found])]
        for key, found in asked.items()
        if found is not None
    }
    return edge.Filter(**parts)


def _condition(asked: Json) -> Any:
    if "key" in asked:
        return edge.FieldCondition(
            asked["key"], match=_match(asked.get("match")), range=_range(asked.get("range"))
        )
    if "has_id" in asked:
        return edge.HasIdCondition(set(asked["has_id"]))
    if "is_empty" in asked:
        return edge.IsEmptyCondition(asked["is_empty"]["key"])
    return filter_of(asked)


_MATCHES = {
    "value": edge.MatchValue,
    "any": edge.MatchAny,
    "except": edge.MatchExcept,
    "text": edge.MatchText,
    "prefix": edge.MatchPrefix,
}


def _match(asked: Json | None) -> Any:
    if not asked:
        return None
    ((kind, value),) = asked.items()
    return _MATCHES[kind](value)


def _range(asked: Json | None) -> Any:
    limits = {key: value for key, value in (asked or {}).items() if value is not None}
    if not limits:
        return None
    dates = any(isinstance(value, str) for value in limits.values())
    return edge.RangeDateTime(**limits) if dates else edge.RangeFloat(**limits)


def _params(asked: Json | None) -> edge.SearchParams | None:
    if not asked:
        return None
    return edge.SearchParams(hnsw_ef=asked.get("hnsw_ef"), exact=asked.get("exact") or False)


def _selection(asked: Any, default: bool) -> Any:
    if isinstance(asked, dict):
        include = asked.get("include")
        kinds = edge.PayloadSelector
        return kinds.Include(include) if include else kinds.Exclude(asked["exclude"])
    return default if asked is None else asked
