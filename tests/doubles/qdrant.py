"""A double of Qdrant: the part of its REST interface that search needs, exact and in memory.

It says nothing about Qdrant's speed or its index. As a program it serves on a port: `python3
qdrant.py PORT`; it needs the standard library only, so that an image for it is small.
"""

import json
import math
import re
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Vectors = dict[str, Any]


class Collection:
    """Points by id, each with its vectors by name and a payload."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters
        self.points: dict[str, tuple[Vectors, dict[str, Any]]] = {}

    def upsert(self, points: list[dict[str, Any]]) -> None:
        """Add points, in place of those with the same ids."""
        for point in points:
            self.points[str(point["id"])] = (point["vector"], point.get("payload") or {})

    def query(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """The points nearest to a dense or a sparse vector."""
        query, using = asked["query"], asked["using"]
        query = query.get("nearest", query) if isinstance(query, dict) else query
        scores = (
            self._sparse(query, using) if isinstance(query, dict) else self._dense(query, using)
        )
        best = sorted(scores.items(), key=lambda pair: -pair[1])[: asked.get("limit") or 10]
        return [{"id": id_, "version": 0, "score": score} for id_, score in best]

    def _dense(self, query: list[float], using: str) -> dict[str, float]:
        return {
            id_: _cosine(query, vectors[using])
            for id_, (vectors, _) in self.points.items()
            if using in vectors
        }

    def _sparse(self, query: dict[str, Any], using: str) -> dict[str, float]:
        weights = {
            id_: dict(zip(vectors[using]["indices"], vectors[using]["values"], strict=True))
            for id_, (vectors, _) in self.points.items()
            if using in vectors
        }
        asked = dict(zip(query["indices"], query["values"], strict=True))
        having = {index: sum(index in each for each in weights.values()) for index in asked}
        # https://qdrant.tech/documentation/concepts/indexing/#idf-modifier
        rarity = {
            index: math.log((len(weights) - count + 0.5) / (count + 0.5) + 1)
            for index, count in having.items()
        }
        scores = {
            id_: sum(asked[i] * rarity[i] * each[i] for i in asked if i in each)
            for id_, each in weights.items()
        }
        return {id_: score for id_, score in scores.items() if score > 0}


def _cosine(one: list[float], other: list[float]) -> float:
    sizes = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / (sizes or 1.0)


class Server:
    """Answers by method and path; one request at a time."""

    def __init__(self) -> None:
        self.collections: dict[str, Collection] = {}
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and result; None where there is no such collection."""
        with self._lock:
            if path == "/readyz":
                return 200, "all shards are ready"
            if path == "/collections":
                return 200, {"collections": [{"name": name} for name in self.collections]}
            match = re.fullmatch(r"/collections/([\w-]+)(/[\w/]+)?", path)
            return self._of(match[1], method, match[2] or "", body) if match else (404, None)

    def _of(self, name: str, method: str, action: str, body: Any) -> tuple[int, Any]:
        collection = self.collections.get(name)
        if action == "/exists":
            return 200, {"exists": collection is not None}
        if (method, action) == ("PUT", ""):
            self.collections[name] = Collection(body)
            return 200, True
        if collection is None:
            return 404, None
        if (method, action) == ("GET", ""):
            return 200, _described(collection)
        if (method, action) == ("PUT", "/points"):
            collection.upsert(body["points"])
        elif (method, action) == ("POST", "/points"):
            return 200, [
                {"id": id_, "payload": collection.points[id_][1]}
                for id_ in body["ids"]
                if id_ in collection.points
            ]
        elif action == "/points/delete":
            for point in body["points"]:
                collection.points.pop(str(point), None)
        elif action == "/points/query/batch":
            return 200, [{"points": collection.query(asked)} for asked in body["searches"]]
        else:
            return 404, None
        return 200, {"operation_id": 1, "status": "completed"}


def _described(collection: Collection) -> dict[str, Any]:
    return {
        "status": "green",
        "optimizer_status": "ok",
        "points_count": len(collection.points),
        "indexed_vectors_count": 0,
        "segments_count": 1,
        "config": {
            "params": collection.parameters,
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
        },
        "payload_schema": {},
    }


def serve(port: int, address: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server that is bound and still has to be run."""
    double = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            status, result = double.answer(self.command, self.path.partition("?")[0], body)
            said = {"status": "ok" if status == 200 else {"error": "Not found"}, "time": 0.0}
            data = json.dumps({**said, "result": result}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = handle_any

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return ThreadingHTTPServer((address, port), Handler)


if __name__ == "__main__":
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    serve(int(sys.argv[1]), "0.0.0.0").serve_forever()
