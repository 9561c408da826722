"""The server's REST interface: collections, aliases and points."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.doubles.qdrant.collection import Collection
from tests.doubles.qdrant.queries import Json

_COLLECTION = re.compile(r"/collections/([\w.-]+)(/[\w/]+)?")
_DONE = {"operation_id": 1, "status": "completed"}


class NotFound(Exception):
    """No such collection, or no such path."""


class AlreadyExists(Exception):
    """A collection of this name; the server answers 409 since 1.8."""


class Server:
    """All collections below a directory, and the aliases of some."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._aliases_file = storage / "aliases.json"
        self.collections = {
            path.parent.name: Collection(path.parent) for path in storage.glob("*/parameters.json")
        }
        noted = self._aliases_file
        self.aliases: dict[str, str] = json.loads(noted.read_text()) if noted.exists() else {}

    def close(self) -> None:
        """Write what is pending."""
        for collection in self.collections.values():
            collection.close()

    def index(self, idle_seconds: float) -> None:
        """Index what has grown and is not being changed."""
        for collection in [*self.collections.values()]:
            if collection.unindexed and collection.idle_seconds > idle_seconds:
                collection.index()

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The `result` of an answer. Raises NotFound, AlreadyExists, BadRequest."""
        if path == "/readyz":
            return "all shards are ready"
        if path == "/":
            return {"title": "qdrant stand-in", "version": "1.19.1"}
        if path == "/collections":
            return {"collections": [{"name": name} for name in self.collections]}
        if path == "/aliases":
            return {"aliases": [_alias(*each) for each in self.aliases.items()]}
        if path == "/collections/aliases":
            return self._change_aliases(body["actions"])
        if match := _COLLECTION.fullmatch(path):
            return self._of(match[1], method, match[2] or "", body or {})
        raise NotFound(path)

    def _change_aliases(self, actions: list[Json]) -> bool:
        with self._lock:
            for action in actions:
                ((kind, given),) = action.items()
                if kind == "create_alias":
                    self._find(given["collection_name"])
                    self.aliases[given["alias_name"]] = given["collection_name"]
                elif kind == "delete_alias":
                    self.aliases.pop(given["alias_name"], None)
            self._aliases_file.write_text(json.dumps(self.aliases))
        return True

    def _find(self, name: str) -> Collection:
        collection = self.collections.get(self.aliases.get(name, name))
        if collection is None:
            raise NotFound(f"Collection `{name}` doesn't exist!")
        return collection

    def _of(self, name: str, method: str, action: str, body: Json) -> Any:
        if action == "/exists":
            return {"exists": self.aliases.get(name, name) in self.collections}
        if action == "" and method in ("PUT", "DELETE"):
            return self._create(name, body) if method == "PUT" else self._delete(name)
        handler = _HANDLERS.get((method, action))
        if not handler:
            raise NotFound(action)
        return handler(self._find(name), body)

    def _create(self, name: str, body: Json) -> bool:
        with self._lock:
            if name in self.collections or name in self.aliases:
                raise AlreadyExists(f"Collection `{name}` already exists!")
            self.collections[name] = Collection.create(self._storage / name, body)
        return True

    def _delete(self, name: str) -> bool:
        with self._lock:
            collection = self.collections.pop(name, None)
            if not collection:
                return False
            collection.close()
            shutil.rmtree(self._storage / name)
            self.aliases = {key: to for key, to in self.aliases.items() if to != name}
            self._aliases_file.write_text(json.dumps(self.aliases))
        return True


def _alias(name: str, collection: str) -> Json:
    return {"alias_name": name, "collection_name": collection}


def _updated(collection: Collection, *operations: Json) -> Json:
    for operation in operations:
        collection.update(operation)
    return _DONE


def _patched(collection: Collection, body: Json) -> bool:
    collection.set_metadata(body.get("metadata") or {})
    return True


def _indexed(collection: Collection, body: Json) -> Json:
    collection.index_payload(body)
    return _DONE


_HANDLERS: dict[tuple[str, str], Callable[[Collection, Json], Any]] = {
    ("GET", ""): lambda collection, _: collection.described(),
    ("PATCH", ""): _patched,
    ("PUT", "/index"): _indexed,
    ("PUT", "/points"): lambda collection, body: _updated(collection, {"upsert": body}),
    ("POST", "/points"): lambda collection, body: collection.retrieve(body),
    ("POST", "/points/delete"): lambda collection, body: _updated(collection, {"delete": body}),
    ("POST", "/points/batch"): lambda collection, body: [
        _updated(collection, each) for each in body["operations"]
    ],
    ("POST", "/points/query"): lambda collection, body: {"points": collection.query(body)},
    ("POST", "/points/query/batch"): lambda collection, body: [
        {"points": collection.query(each)} for each in body["searches"]
    ],
    ("POST", "/points/scroll"): lambda collection, body: collection.scroll(body),
    ("POST", "/points/count"): lambda collection, body: collection.count(body),
}
