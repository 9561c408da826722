"""One collection: a shard of Qdrant's core and the description with which it was created."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from tests.doubles.qdrant.queries import BadRequest, Json, filter_of, query_request, vector_of
from tests.doubles.qdrant.queries import scroll_request as scrolled

_HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000}
_INDEXED_FROM = 10_000 * 1024
"""Bytes of vectors that are not in the index before it is built; the server's default."""


class Collection:
    """Points with dense and sparse vectors and a payload."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.parameters: dict[str, Any] = json.loads((home / "parameters.json").read_text())
        self._shard = edge.EdgeShard.load(str(home / "shard"))
        self._lock = threading.Lock()
        self._numbers: int = sum(each["size"] for each in self.parameters["vectors"].values())
        self._new_points, self._changed = 0, time.monotonic()

    @classmethod
    def create(cls, home: Path, parameters: Json) -> Collection:
        """Raises BadRequest where the core refuses the parameters."""
        hnsw = {**_HNSW, **_given(parameters.get("hnsw_config"))}
        config = edge.EdgeConfig(
            vectors={name: _dense(each) for name, each in parameters["vectors"].items()},
            sparse_vectors={
                name: edge.EdgeSparseVectorParams(
                    modifier=edge.Modifier.Idf if each.get("modifier") == "idf" else None
                )
                for name, each in (parameters.get("sparse_vectors") or {}).items()
            },
            hnsw_config=edge.HnswIndexConfig(**{key: hnsw[key] for key in _HNSW}),
        )
        home.mkdir(parents=True)
        (home / "parameters.json").write_text(json.dumps(parameters))
        edge.EdgeShard.create(str(home / "shard"), config).close()
        return cls(home)

    def close(self) -> None:
        """Write what is pending and let the files go."""
        self._shard.flush()
        self._shard.close()

    def set_metadata(self, changed: Json) -> None:
        """Merge into the notes that clients keep with a collection."""
        self.parameters["metadata"] = {**(self.parameters.get("metadata") or {}), **changed}
        (self._home / "parameters.json").write_text(json.dumps(self.parameters))

    def update(self, operation: Json) -> None:
        """One operation of `points/batch`, or the body of a request of its own."""
        ((kind, body),) = operation.items()
        if kind == "upsert":
            points = [_point(each) for each in body["points"]]
            self._apply(edge.UpdateOperation.upsert_points(points))
            self._new_points += len(points)
        elif "filter" in body:
            wanted = filter_of(body["filter"])
            assert wanted
            self._apply(edge.UpdateOperation.delete_points_by_filter(wanted))
        else:
            self._apply(edge.UpdateOperation.delete_points(body["points"]))

    @property
    def unindexed(self) -> bool:
        """Whether the server would build the index now."""
        return self._new_points * self._numbers * 4 > _INDEXED_FROM

    @property
    def idle_seconds(self) -> float:
        """Since the last change."""
        return time.monotonic() - self._changed

    def index(self) -> None:
        """Build the index of all points; it stops every other thread."""
        with self._lock:
            self._shard.optimize()
            self._new_points = 0

    def index_payload(self, body: Json) -> None:
        """Index a field of the payload."""
        schema = body["field_schema"]
        kind = schema if isinstance(schema, str) else schema["type"]
        made: Any = getattr(edge.PayloadSchemaType, kind.title())
        if isinstance(schema, dict) and kind == "keyword":
            made = edge.KeywordIndexParams(prefix=schema.get("prefix"))
        self._apply(edge.UpdateOperation.create_field_index(body["field_name"], made))

    def _apply(self, operation: edge.UpdateOperation) -> None:
        with self._lock:
            self._asked(self._shard.update, operation)
            self._changed = time.monotonic()

    @staticmethod
    def _asked(question: Any, *arguments: Any) -> Any:
        """The core has one class of errors; almost all are mistakes in the request."""
        try:
            return question(*arguments)
        except Exception as error:
            raise BadRequest(str(error)) from error

    def query(self, asked: Json) -> list[Json]:
        """The best points, each with its score."""
        found = self._asked(self._shard.query, query_request(asked))
        return [{**_record(each), "version": each.version, "score": each.score} for each in found]

    def scroll(self, asked: Json) -> Json:
        """Points by id, from an offset on."""
        found, following = self._asked(self._shard.scroll, scrolled(asked))
        return {
            "points": [_record(each) for each in found],
            "next_page_offset": following and _id(following),
        }

    def retrieve(self, asked: Json) -> list[Json]:
        """Points by id."""
        wanted = (asked["ids"], asked.get("with_payload", True), asked.get("with_vector") or False)
        return [_record(each) for each in self._asked(self._shard.retrieve, *wanted)]

    def count(self, asked: Json) -> Json:
        """Number of points that meet a filter."""
        wanted = edge.CountRequest(exact=True, filter=filter_of(asked.get("filter")))
        return {"count": self._asked(self._shard.count, wanted)}

    def described(self) -> Json:
        """What the server says about a collection."""
        info = self._shard.info()
        names = ("vectors", "sparse_vectors")
        return {
            "status": "yellow" if self.unindexed else "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "segments_count": info.segments_count,
            "config": {
                "params": {key: self.parameters.get(key) for key in names},
                "hnsw_config": {**_HNSW, **_given(self.parameters.get("hnsw_config"))},
                "optimizer_config": {"default_segment_number": 0, "flush_interval_sec": 5},
                "metadata": self.parameters.get("metadata"),
            },
            "payload_schema": {
                field: {"data_type": str(each.data_type).split(".")[-1].lower(), "points": 0}
                for field, each in info.payload_schema.items()
            },
        }


def _given(found: Json | None) -> Json:
    return {key: value for key, value in (found or {}).items() if value is not None}


def _dense(given: Json) -> edge.EdgeVectorParams:
    return edge.EdgeVectorParams(
        size=given["size"], distance=getattr(edge.Distance, given["distance"])
    )


def _point(given: Json) -> edge.Point:
    vectors = {name: vector_of(each) for name, each in given["vector"].items()}
    return edge.Point(given["id"], vectors, given.get("payload") or {})


def _id(found: Any) -> int | str:
    return found if isinstance(found, int) else str(found)


def _record(found: Any) -> dict[str, Any]:
    record: dict[str, Any] = {"id": _id(found.id)}
    if found.payload is not None:
        record["payload"] = found.payload
    if found.vector is not None:
        record["vector"] = {name: _plain(each) for name, each in found.vector.items()}
    return record


def _plain(vector: Any) -> Any:
    if isinstance(vector, edge.SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return list(vector)
