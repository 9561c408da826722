"""The client of `llmhost bench`: streamed chat completions at a fixed concurrency."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from llmhost.bench.report import Sample
from llmhost.units import reason

_LONGEST_REASON = 200
_WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "counts")


@dataclass(frozen=True)
class Load:
    """What each request is: the chat route, the role, and sizes in words and tokens."""

    path: str
    model: str
    prompt_words: int
    max_tokens: int

    def body(self, number: int) -> dict[str, object]:
        """Of a request. No prompt begins as another one, so that no engine can reuse its work. With
        `ignore_eos`, llama.cpp and vLLM write all the tokens; Ollama does not know it."""
        words = (_WORDS[(number + place) % len(_WORDS)] for place in range(self.prompt_words))
        return {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": self.max_tokens,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": f"{number}: {' '.join(words)}"}],
        }


def measure(
    client: httpx.Client, load: Load, concurrency: int, requests: int, begin: int
) -> tuple[float, list[Sample]]:
    """Seconds and answers of `requests` requests, numbered from `begin`; each of the concurrent
    clients sends its next one when it has the answer."""
    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        numbers = range(begin, begin + requests)
        samples = list(pool.map(lambda number: sample(client, load, number), numbers))
    return time.perf_counter() - started, samples


def sample(client: httpx.Client, load: Load, number: int) -> Sample:
    """One answer; an error is a sample too."""
    started = time.perf_counter()
    first = last = 0.0
    events = reported = 0
    try:
        with client.stream("POST", load.path, json=load.body(number)) as answer:
            if answer.status_code != httpx.codes.OK:
                return Sample(error=refusal(answer))
            for event in stream_events(answer):
                if why := failure(event):
                    return Sample(error=why)
                reported = tokens_in(event) or reported
                if _has_text(event):
                    last = time.perf_counter() - started
                    first = first or last
                    events += 1
    except httpx.TimeoutException:
        return Sample(error="timed out")
    except httpx.TransportError as error:
        return Sample(error=reason(error))
    if not events:
        return Sample(error="an answer without a token")
    return Sample(first, last, reported or events)


def stream_events(answer: httpx.Response) -> Iterator[dict[str, object]]:
    """The events of a streamed answer."""
    for line in answer.iter_lines():
        if line.startswith("data:") and line[5:].strip() != "[DONE]":
            try:
                event = json.loads(line[5:])
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                yield event


def failure(event: dict[str, object]) -> str:
    """What an engine reports in a stream that began with status 200; empty for another event."""
    error = event.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    words = " ".join(str(message or "no reason given").split())
    return f"failed after it began: {words[:_LONGEST_REASON]}" if error else ""


def _has_text(event: dict[str, object]) -> bool:
    """Whether an event has a token, of the answer or of its reasoning."""
    delta = delta_in(event)
    return any(delta.get(key) for key in ("content", "reasoning_content", "reasoning"))


def delta_in(event: dict[str, object]) -> dict[str, object]:
    """What an event adds to the answer."""
    delta = choice_in(event).get("delta")
    return delta if isinstance(delta, dict) else {}


def choice_in(event: dict[str, object]) -> dict[str, object]:
    """The first choice of an event, with its `delta` and `finish_reason`; empty if it has none."""
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def tokens_in(event: dict[str, object]) -> int:
    """Tokens of the whole answer, if the event says so; else 0."""
    usage = event.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else 0


def refusal(answer: httpx.Response) -> str:
    """The status, with the gateway's code if there is one."""
    try:
        code = json.loads(answer.read())["error"]["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        code = None
    return f"{answer.status_code} {code}" if code else str(answer.status_code)
