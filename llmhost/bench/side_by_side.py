"""The same questions to two models: `llmhost compare`.

`CompareReport` is what `llmhost compare --json` prints; docs/compare.schema.json describes it.
"""

import time
from dataclasses import dataclass

import httpx

from llmhost.bench.client import choice_in, delta_in, failure, refusal, stream_events, tokens_in
from llmhost.template import render
from llmhost.units import reason

SCHEMA = 1
QUESTIONS = (
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Summarize in one sentence: the meeting was moved from Monday to Thursday, because the room was"
    " taken, and Ann will send the new invitation.",
    "A train leaves at 9:40 and needs 95 minutes. When does it arrive?",
    "Translate into French: Please close the window before you leave.",
)
"""Asked if there is no file of questions."""


@dataclass(frozen=True)
class Answer:
    """One model's answer, or why there is none; seconds to the first token and to the end.
    `is_cut`: it reached the most tokens that were asked for."""

    text: str = ""
    first_seconds: float = 0
    seconds: float = 0
    tokens: int = 0
    error: str = ""
    is_cut: bool = False


@dataclass(frozen=True)
class Asked:
    """A question, and the answers of the first and the second model. `better` is the model that a
    person chose, or empty."""

    question: str
    first: Answer
    second: Answer
    better: str = ""

    @property
    def failed(self) -> bool:
        """Whether an answer is missing."""
        return bool(self.first.error or self.second.error)


@dataclass(frozen=True)
class CompareReport:
    """Two models, side by side."""

    schema: int
    host: str
    time: str
    first: str
    second: str
    questions: tuple[Asked, ...]

    def chosen(self, model: str) -> int:
        """How often a person preferred a model."""
        return sum(each.better == model for each in self.questions)


def ask(client: httpx.Client, path: str, model: str, question: str, max_tokens: int) -> Answer:
    """Stream one answer. An error is an answer too."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begun, first, parts, reported, is_cut = time.perf_counter(), 0.0, list[str](), 0, False
    try:
        # llama.cpp closes a connection after a stream without saying so.
        with client.stream("POST", path, json=body, headers={"Connection": "close"}) as answer:
            if answer.status_code != httpx.codes.OK:
                return Answer(error=refusal(answer))
            for event in stream_events(answer):
                if why := failure(event):
                    return Answer(error=why)
                reported = tokens_in(event) or reported
                is_cut = is_cut or choice_in(event).get("finish_reason") == "length"
                if text := _text(event):
                    first = first or time.perf_counter() - begun
                    parts.append(text)
    except httpx.TimeoutException:
        return Answer(error="timed out")
    except httpx.TransportError as error:
        return Answer(error=reason(error))
    if not parts:
        return Answer(error=_without_text(max_tokens if is_cut else 0))
    seconds = time.perf_counter() - begun
    return Answer("".join(parts), first, seconds, reported or len(parts), is_cut=is_cut)


def _text(event: dict[str, object]) -> str:
    """The part of the answer in an event; reasoning is not part of it."""
    content = delta_in(event).get("content")
    return content if isinstance(content, str) else ""


def _without_text(tokens: int) -> str:
    """`tokens`: how many the answer had when it was cut; 0 if it was not."""
    if not tokens:
        return "an answer without text"
    return f"no text in {tokens} tokens; raise --tokens for a model that reasons first"


def page(report: CompareReport) -> str:
    """The report as one HTML file without scripts."""
    return render("report/compare.html.j2", report=report)
