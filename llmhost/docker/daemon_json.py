"""Merges daemon.json: keys of llmhost win, foreign keys stay, and keys that llmhost no longer sets
are removed.

Pure. A file next to daemon.json has the paths of keys that llmhost owns: `["features", "cdi"]`.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

KeyPath = tuple[str, ...]

HARDENED: Mapping[str, Any] = {"no-new-privileges": True}
"""Hardening that every host supports: no process of a container gains privileges."""

HARDENED_BY_BRIDGE: Mapping[str, Any] = {"icc": False, "userland-proxy": False}
"""Hardening that needs the kernel to filter packets between ports of a bridge: dockerd does not
start otherwise. `icc` concerns containers on the default bridge only. Without the userland proxy,
published ports need no process of root's; on WSL, Windows finds ports by that process."""

# The options belong to the log driver: dockerd refuses leftovers of another driver.
_WHOLE = frozenset({"log-opts"})


class BrokenConfig(ValueError):
    """daemon.json cannot be parsed; the message is a sentence with the position."""


def hardened(config: Mapping[str, Any], *, bridge_filter: bool) -> dict[str, Any]:
    """The configuration with the keys of hardening that the host supports, unless it has them."""
    return {**HARDENED, **(HARDENED_BY_BRIDGE if bridge_filter else {}), **config}


def restart_sentences(loaded: Mapping[str, Any], changed: Iterable[str]) -> list[str]:
    """What becomes of the running containers when the daemon that has loaded this restarts, and
    which change waits for them (moby, daemon_unix.go: initNetworkController)."""
    if not loaded.get("live-restore"):
        return ["the Docker daemon restarts; running containers restart with it"]
    kept = ["the Docker daemon restarts; running containers keep running"]
    if "icc" in changed:
        kept.append("icc takes effect when Docker starts without running containers: reboot once")
    return kept


def parse_config(text: str, path: str) -> dict[str, Any]:
    """The configuration in a file's text; an empty file is an empty configuration, as for dockerd.
    Raises BrokenConfig."""
    if not text.strip():
        return {}
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise BrokenConfig(f"{path} is not valid JSON at {place}: {error.msg}") from error
    if not isinstance(config, dict):
        raise BrokenConfig(f"{path} must contain a JSON object, {{…}}")
    return config


def parse_owned(text: str) -> set[KeyPath]:
    """Key paths that an earlier run set; unreadable text owns nothing."""
    try:
        return {tuple(path) for path in json.loads(text)}
    except (ValueError, TypeError):
        return set()


def render_owned(paths: Iterable[KeyPath]) -> str:
    """The text that `parse_owned` reads."""
    return json.dumps(sorted(paths)) + "\n"


def render_config(config: Mapping[str, Any]) -> str:
    """Text of daemon.json. JSON allows no comment about who manages it."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def key_paths(config: Mapping[str, Any], above: KeyPath = ()) -> set[KeyPath]:
    """The paths of all keys in a configuration, except objects."""
    paths: set[KeyPath] = set()
    for key, value in config.items():
        path = (*above, key)
        paths |= key_paths(value, path) if _is_branch(key, value) else {path}
    return paths


def merge(
    existing: Mapping[str, Any], wanted: Mapping[str, Any], owned: Iterable[KeyPath]
) -> dict[str, Any]:
    """The configuration that replaces `existing`."""
    kept = {**existing}
    for path in set(owned) - key_paths(wanted):
        kept = _without(kept, path)
    return _overlay(kept, wanted)


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of the top-level keys that differ; values are left out, because they may be secret."""
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def _is_branch(key: str, value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and key not in _WHOLE


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = {**below}
    for key, value in above.items():
        under = below.get(key)
        branches = _is_branch(key, value) and isinstance(under, Mapping)
        result[key] = _overlay(under, value) if branches and under is not None else value
    return result


def _without(config: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    """A copy without the key at a path, and without objects that become empty."""
    key, *rest = path
    result = {**config}
    if key not in result:
        return result
    if rest and isinstance(result[key], Mapping):
        result[key] = _without(result[key], tuple(rest))
        if not result[key]:
            del result[key]
    elif not rest:
        del result[key]
    return result
