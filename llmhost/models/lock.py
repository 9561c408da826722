"""The lock file: which commit and which hashes a model's source stood for when it was locked. Pure.

It is JSON, written by `llmhost model lock`, kept beside the inventory and under version control.
"""

import json
from collections.abc import Mapping
from typing import Any

SCHEMA = 1

_PINS = ("revision", "sha256", "files")
_TOLD = ("licence", "base_models")


class LockError(ValueError):
    """The file is not a lock file; the text continues "the lock file"."""


def read_lock(text: str) -> dict[str, dict[str, Any]]:
    """Entries by source. Raises LockError."""
    try:
        content = json.loads(text)
    except ValueError:
        raise LockError("is not JSON") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise LockError(f"has no schema {SCHEMA}")
    models = content.get("models")
    if not isinstance(models, dict) or not all(isinstance(each, dict) for each in models.values()):
        raise LockError("has no models")
    return models


def write_lock(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Text of the lock file, the same for the same entries."""
    content = {"schema": SCHEMA, "models": {source: entries[source] for source in sorted(entries)}}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def is_pinned(record: Mapping[str, Any]) -> bool:
    """Whether a record of `models` needs no lock."""
    return bool(record.get("sha256") or record.get("files"))


def with_pins(record: Mapping[str, Any], lock: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A record of `models` with the pins of its source, unless it has its own.

    A revision of its own that the lock does not know leaves it as it is.
    """
    entry = lock.get(str(record.get("source")))
    if is_pinned(record) or entry is None:
        return dict(record)
    if record.get("revision") not in (None, entry.get("revision")):
        return dict(record)
    pins = {key: entry[key] for key in _PINS if key in entry}
    told = {key: entry[key] for key in _TOLD if key in entry}
    # What the hub says of ancestors counts besides what the inventory says: policies see both.
    own = record.get("base_models") or ()
    if not isinstance(own, list | tuple):
        return {**record, **pins}  # the reader of settings reports it
    bases = [*own, *told.pop("base_models", ())]
    more = {"base_models": bases} if bases else {}
    return {**told, **record, **pins, **more}
