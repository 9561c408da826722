"""The lock file: commits and digests of the sources of models. Pure.

It is JSON, written by `llmhost model lock`. Keep it next to the inventory, under version control.
"""

import json
from collections.abc import Mapping
from typing import Any

SCHEMA = 1

_PINS = ("revision", "sha256", "files")
_STATED = ("licence", "base_models")


class LockError(ValueError):
    """The file is not a lock file; the text continues "the lock file"."""


def read_lock(text: str) -> dict[str, dict[str, Any]]:
    """Entries by `lock_key`. Raises LockError."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise LockError("is not JSON") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise LockError(f"has no schema {SCHEMA}")
    models = content.get("models")
    if not isinstance(models, dict) or not all(isinstance(each, dict) for each in models.values()):
        raise LockError("has no models")
    return models


def write_lock(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Text of the lock file, the same for the same entries."""
    content = {"schema": SCHEMA, "models": {key: entries[key] for key in sorted(entries)}}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def lock_key(record: Mapping[str, Any]) -> str:
    """The key of a record's entry: its source, and the selection of its files if it has one."""
    include, source = record.get("include") or (), str(record.get("source"))
    if not isinstance(include, list | tuple):
        return source  # the reader of settings reports it
    return f"{source} [{' '.join(map(str, include))}]" if include else source


def is_pinned(record: Mapping[str, Any]) -> bool:
    """Whether a record of `models` needs no lock."""
    return bool(record.get("sha256") or record.get("files"))


def with_pins(record: Mapping[str, Any], lock: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A record of `models` with the pins of its source; its own pins have priority.

    A record with a revision that is not in the lock does not change.
    """
    entry = lock.get(lock_key(record))
    if is_pinned(record) or entry is None:
        return dict(record)
    if record.get("revision") not in (None, entry.get("revision")):
        return dict(record)
    pins = {key: entry[key] for key in _PINS if key in entry}
    stated = {key: entry[key] for key in _STATED if key in entry}
    # Policies check the ancestors in the lock and those in the inventory.
    own = record.get("base_models") or ()
    if not isinstance(own, list | tuple):
        return {**record, **pins}  # the reader of settings reports it
    bases = [*own, *stated.pop("base_models", ())]
    more = {"base_models": bases} if bases else {}
    return {**stated, **record, **pins, **more}
