"""Benchmarks of a gateway: from measured answers to a report, and the comparison of two. Pure.

`BenchReport` is what `llmhost bench --json` prints; docs/bench.schema.json describes it. A change
of these classes changes the schema: increase SCHEMA.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llmhost.verify.latency import percentile

SCHEMA = 1
BETTER_HIGH = ("tokens_per_second", "goodput_per_second")
BETTER_LOW = (
    "first_token_p50_seconds",
    "first_token_p95_seconds",
    "between_tokens_p50_seconds",
    "between_tokens_p95_seconds",
)


@dataclass(frozen=True)
class Sample:
    """One streamed answer: seconds from the request to its first and last token, and its tokens; or
    why there is none."""

    first_seconds: float = 0
    last_seconds: float = 0
    tokens: int = 0
    error: str = ""

    @property
    def between_seconds(self) -> float | None:
        """Mean time between two tokens; None with one token."""
        if self.tokens < 2:
            return None
        return (self.last_seconds - self.first_seconds) / (self.tokens - 1)


@dataclass(frozen=True)
class Goal:
    """Answers within these limits count as goodput."""

    first_token_seconds: float
    between_tokens_seconds: float

    def met(self, sample: Sample) -> bool:
        """Whether an answer is within the limits."""
        between = sample.between_seconds or 0
        in_time = sample.first_seconds <= self.first_token_seconds
        return not sample.error and in_time and between <= self.between_tokens_seconds


@dataclass(frozen=True)
class Level:
    """Measurements with `concurrency` clients that each send one request after another. `failed`
    requests are in no other figure, and `errors` counts them by reason. Tokens are those of
    answers, of all clients together. Goodput: answers per second within the goal. p95: 95 of 100
    answers are not slower; null without an answer that has such a time."""

    model: str
    concurrency: int
    requests: int
    failed: int
    seconds: float
    tokens: int
    tokens_per_second: float
    goodput_per_second: float
    first_token_p50_seconds: float | None
    first_token_p95_seconds: float | None
    between_tokens_p50_seconds: float | None
    between_tokens_p95_seconds: float | None
    errors: Mapping[str, int]


@dataclass(frozen=True)
class BenchReport:
    """The output of `llmhost bench --json`. `time` is ISO 8601, UTC; `prompt_words` and
    `max_tokens` are the size of each request."""

    schema: int
    host: str
    time: str
    version: str
    prompt_words: int
    max_tokens: int
    goal: Goal
    levels: tuple[Level, ...]


def level(
    model: str, concurrency: int, seconds: float, samples: Sequence[Sample], goal: Goal
) -> Level:
    """The measurements of a level that took this long."""
    good = [each for each in samples if not each.error]
    first = [each.first_seconds for each in good]
    between = [each.between_seconds for each in good if each.between_seconds is not None]
    tokens = sum(each.tokens for each in good)
    return Level(
        model=model,
        concurrency=concurrency,
        requests=len(samples),
        failed=len(samples) - len(good),
        seconds=round(seconds, 3),
        tokens=tokens,
        tokens_per_second=round(tokens / seconds, 2),
        goodput_per_second=round(sum(map(goal.met, good)) / seconds, 3),
        first_token_p50_seconds=_percentile(first, 50),
        first_token_p95_seconds=_percentile(first, 95),
        between_tokens_p50_seconds=_percentile(between, 50),
        between_tokens_p95_seconds=_percentile(between, 95),
        errors=dict(Counter(each.error for each in samples if each.error).most_common()),
    )


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return round(percentile(values, percent), 4) if values else None


def parsed(text: str) -> BenchReport:
    """A report from an earlier output. Raises ValueError, whose text continues the file's name."""
    try:
        found: Any = json.loads(text)
        if found["schema"] != SCHEMA:
            raise ValueError(f"has the schema {found['schema']}, and this llmhost has {SCHEMA}")
        return TypeAdapter(BenchReport).validate_python(found)
    except (json.JSONDecodeError, ValidationError, KeyError, TypeError):
        raise ValueError("is not the output of llmhost bench --json") from None


def incomparable(now: BenchReport, before: BenchReport) -> list[str]:
    """Why two reports cannot be compared; empty if they can."""
    return [
        f"{name} was {getattr(before, name)} and is {getattr(now, name)}"
        for name in ("prompt_words", "max_tokens", "goal")
        if getattr(now, name) != getattr(before, name)
    ]


def changes(now: Level, before: BenchReport) -> dict[str, float]:
    """By figure, how it changed since the same level of another report, as a share: 0.1 is 10 %
    more. Empty if there is no such level."""
    key = (now.model, now.concurrency)
    same = [each for each in before.levels if (each.model, each.concurrency) == key]
    if not same:
        return {}
    found = {}
    for name in (*BETTER_HIGH, *BETTER_LOW):
        new, old = getattr(now, name), getattr(same[0], name)
        if new is not None and old:
            found[name] = new / old - 1
    return found
