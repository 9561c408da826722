"""Answers of an engine without what differs from run to run: texts, numbers, lengths."""

import json
import re
from typing import Any

import httpx

Json = dict[str, Any]

LITERAL = (
    *("code", "detail", "finish_reason", "kind", "message", "model", "object", "owned_by", "param"),
    *("parent", "reason", "role", "status", "stop_reason", "truncation", "type", "version"),
)
"""Keys whose values are the same for every model."""


def shape(value: object, key: str = "") -> object:
    """A value with the types of what differs; of a list, its first element."""
    if isinstance(value, dict):
        if key == "top_logprobs" and "token" not in value:
            return "logprob by token"
        return {name: shape(each, name) for name, each in sorted(value.items())}
    if isinstance(value, list):
        return "list" if key == "bytes" else [shape(each, key) for each in value[:1]]
    if isinstance(value, bool) or value is None or (key in LITERAL and key != "message"):
        return value
    if isinstance(value, int | float):
        return "number"
    if key == "message":
        # The engine names each form that a body could have.
        return re.sub(r"(?s)^\d+ validation errors?:.*", "validation errors", str(value))
    return "text"


def events(text: str) -> list[object]:
    """The events of a stream, equal ones in a row only once."""
    found: list[object] = []
    for line in filter(None, text.split("\n")):
        name, _, rest = line.partition(": ")
        if name == "data" and rest != "[DONE]":
            each: object = shape(json.loads(rest))
        else:
            each = line
        found.append(each)
    pairs = [found[at : at + 2] for at in range(0, len(found), 2)] if "event" in text[:5] else found
    return [each for at, each in enumerate(pairs) if at == 0 or each != pairs[at - 1]]


def answer_of(answer: httpx.Response) -> Json:
    """Status, content type, and the shape of the body."""
    kind = answer.headers.get("Content-Type")
    told: Json = {"status": answer.status_code, "type": kind}
    if kind and kind.startswith("text/event-stream"):
        return {**told, "events": events(answer.text)}
    if kind == "application/json":
        return {**told, "json": shape(answer.json())}
    return told


def send(engine: httpx.Client, recorded: Json) -> httpx.Response:
    """A recorded request; bodies that are text are sent as they are."""
    body = recorded["body"]
    content = json.dumps(body) if isinstance(body, dict) else body
    headers = {} if body is None else {"Content-Type": "application/json"}
    return engine.request(recorded["method"], recorded["path"], content=content, headers=headers)
