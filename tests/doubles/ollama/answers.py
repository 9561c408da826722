"""What is said, and the forms that an answer can have."""

import json
import time
from typing import Any

from tests.doubles.ollama.refusal import Json, Refused
from tests.doubles.ollama.scheduler import Runner, checked_options
from tests.doubles.ollama.store import Model

WORDS = ["The", " double", " of", " Ollama", " says", " this", "."]
LONG = 100


class Text:
    """An answer that is not JSON."""

    def __init__(self, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        self.text, self.kind = text, kind


class Stream:
    """An answer in parts; a long one takes its time, and keeps its runner busy."""

    def __init__(self, kind: str, lines: list[str], runner: Runner | None = None) -> None:
        self.kind, self.lines, self.runner = kind, lines, runner
        self.pause = 0.02 if len(lines) > LONG else 0.0


class Said:
    """The words of an answer, and how it ended."""

    def __init__(self, body: Json, model: Model, asked: str) -> None:
        self.started = time.time()
        self.options = model.options | checked_options(body)
        words = ['{"ok":', " true}"] if body.get("format") else WORDS
        most = int(self.options.get("num_predict", -1))
        if most > LONG and words is WORDS:
            words = WORDS * (most // len(WORDS) + 1)
        self.words = words if most < 0 else words[:most]
        self.reason = "length" if 0 <= most < len(words) else "stop"
        self.prompt_tokens = len(f"{model.system} {asked}".split()) + 1

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def last(self) -> Json:
        """What only the last part of an answer has."""
        return {
            "done": True,
            "done_reason": self.reason,
            "total_duration": max(1, int((time.time() - self.started) * 1e9)),
            "load_duration": 1000,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_duration": 1000,
            "eval_count": len(self.words),
            "eval_duration": 1000,
        }

    def usage(self) -> Json:
        sent, got = self.prompt_tokens, len(self.words)
        return {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": sent + got}


def required(body: Json, name: str, kind: type, go_name: str) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        kinds: dict[type, str] = {list: "array", dict: "object", str: "string"}
        json_kind = kinds.get(type(value), "number")
        place = f"{go_name}.{name} of type {'string' if kind is str else '[]api.Message'}"
        raise Refused(400, f"json: cannot unmarshal {json_kind} into Go struct field {place}")
    return value


def event_stream(events: list[tuple[str, Json]]) -> Stream:
    lines = [
        f"event: {name}\ndata: {json.dumps({'type': name, **payload})}\n\n"
        for name, payload in events
    ]
    return Stream("text/event-stream", lines)


def line(payload: Json) -> str:
    return json.dumps(payload) + "\n"


def number(prefix: str) -> str:
    return f"{prefix}{int(time.time() * 1e6) % 1000000}"
