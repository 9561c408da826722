"""Measuring a GGUF file with llama.cpp's programs: perplexity, speed, embeddings, reranking."""

import json
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import httpx

from llmhost.making.job import Speed
from llmhost.making.tools import BENCH, PERPLEXITY, SERVER, MakingError, Measured, Tools

_ESTIMATE = re.compile(r"Final estimate: PPL = ([\d.]+)")
_TOO_SHORT = re.compile(r"you need at least (\d+) tokens")
_TRIES = 4
_WINDOW = "512"
"""Tokens of each stretch of text, as in all tables of llama.cpp's own measurements."""
LEAST_TOKENS = 2 * int(_WINDOW)
"""Of a text for perplexity (tools/perplexity/perplexity.cpp)."""
_START_SECONDS = 600
_BATCH = 16
_SEPARATORS = 4
"""Tokens around a question and a text."""


def perplexity(tools: Tools, file: Path, text: str) -> float:
    """Perplexity of a model on a text file. Raises MakingError.

    llama.cpp writes its log in a thread, and llama-perplexity does not wait for it at its end: of
    small models, one run in six lacked the last lines (build 11669). It is then run again.
    """
    arguments = ["-m", str(file), "-f", text, "-c", _WINDOW, "-b", _WINDOW]
    arguments += tools.thread_options
    output = ""
    for _ in range(_TRIES):
        output = tools.run(PERPLEXITY, arguments).output
        if short := _TOO_SHORT.search(output):
            raise too_short(text, int(short[1]))
        if found := _ESTIMATE.search(output):
            return float(found[1])
    (*_, last) = ["nothing", *filter(None, map(str.strip, output.splitlines()))]
    raise MakingError(
        f"cannot be evaluated: {PERPLEXITY} printed no estimate for {text}, and last: {last}"
    )


def too_short(text: str, tokens: int) -> MakingError:
    """The error of a text with fewer than these tokens."""
    return MakingError(
        f"cannot be evaluated on {text}, which is too short: it needs at least {tokens} tokens,"
        " about 4 KiB of English text"
    )


def generation(tools: Tools, file: Path) -> Speed:
    """Tokens per second, one request at a time. Raises MakingError."""
    arguments = ["-m", str(file), "-p", "0", "-n", "32", "-r", "3", "-o", "json"]
    ran = tools.run(BENCH, [*arguments, *tools.thread_options])
    start, end = ran.output.find("\n[") + 1, ran.output.rfind("]") + 1
    try:
        (row,) = json.loads(ran.output[start:end])
        return Speed(ran.peak_bytes, float(row["avg_ts"]), "tokens/s")
    except (ValueError, KeyError, TypeError):
        raise MakingError(f"cannot be measured: {BENCH} printed no result") from None


@dataclass
class _Server:
    """llama.cpp's server with one model, as a context manager. It counts its texts. Raises
    MakingError."""

    OPTION: ClassVar[str]
    UNIT: ClassVar[str]
    EXTRA_TOKENS: ClassVar[int] = 0
    """Room for what the server adds to a text."""

    tools: Tools
    file: Path
    context_tokens: int
    seconds: float = 0.0
    texts: int = 0

    def __enter__(self) -> Self:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        size = str(self.context_tokens + self.EXTRA_TOKENS)
        options = ["--model", str(self.file), self.OPTION, "--parallel", "1", "--ctx-size", size]
        options += ["--batch-size", size, "--ubatch-size", size]
        options += ["--host", "127.0.0.1", "--port", str(port), *self.tools.thread_options]
        self._process = Measured([*self.tools.command(SERVER), *options])
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=_START_SECONDS, trust_env=False
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.watch()
        self._http.close()
        self._process.__exit__()

    def _wait(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if not self._process.watch():
                last = self._process.output().strip().splitlines()[-1:]
                raise MakingError(f"cannot be evaluated: {SERVER} ended: {' '.join(last)}")
            try:
                if self._http.get("/health").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise MakingError(f"cannot be evaluated: {SERVER} was not ready in {_START_SECONDS} s")

    @property
    def speed(self) -> Speed:
        """Of all texts so far."""
        rate = self.texts / self.seconds if self.seconds else 0.0
        return Speed(self._process.peak_bytes, rate, self.UNIT)

    def _ask(self, path: str, body: object) -> dict[str, list]:  # type: ignore[type-arg]
        try:
            answer = self._http.post(path, json=body)
            answer.raise_for_status()
            found: dict[str, list] = answer.json()  # type: ignore[type-arg]
        except httpx.HTTPStatusError as error:
            why = error.response.text[:200]
            raise MakingError(f"cannot be evaluated: {SERVER} answered {why}") from None
        except (httpx.TransportError, ValueError):
            raise MakingError(f"cannot be evaluated: {SERVER} did not answer") from None
        return found


@dataclass
class Embedder(_Server):
    """With a model that embeds."""

    OPTION = "--embedding"
    UNIT = "embeddings/s"

    _known: dict[str, list[float]] = field(default_factory=dict)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of these texts; what is longer than the context is cut."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            tokens = [self._tokens(text) for text in batch]
            begun = time.monotonic()
            answer = self._ask("/v1/embeddings", {"input": tokens})
            self.seconds += time.monotonic() - begun
            self.texts += len(batch)
            for item in answer["data"]:
                self._known[batch[item["index"]]] = item["embedding"]
        self._process.watch()
        return [self._known[text] for text in texts]

    def _tokens(self, text: str) -> list[int]:
        body = {"content": text, "add_special": True}
        found: list[int] = self._ask("/tokenize", body)["tokens"]
        longest = self.context_tokens
        return found if len(found) <= longest else [*found[: longest - 1], found[-1]]


@dataclass
class Reranker(_Server):
    """With a model that reranks."""

    OPTION = "--reranking"
    UNIT = "scores/s"
    EXTRA_TOKENS = 128

    def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """How relevant these texts are to the question. A question is cut to half of the context,
        and a text to the rest of it: the server refuses what is longer."""
        question, length = self._cut(question, self.context_tokens // 2)
        room = self.context_tokens - length - _SEPARATORS
        documents = [self._cut(text, room)[0] for text in texts]
        begun = time.monotonic()
        answer = self._ask("/v1/rerank", {"query": question, "documents": documents})
        self.seconds += time.monotonic() - begun
        self.texts += len(texts)
        self._process.watch()
        found = {item["index"]: item["relevance_score"] for item in answer["results"]}
        if None in found.values():
            raise MakingError("cannot be evaluated: its scores are no numbers")
        return [float(found[place]) for place in range(len(texts))]

    def _cut(self, text: str, longest: int) -> tuple[str, int]:
        """The beginning of a text with at most so many tokens, and their number."""
        while (length := len(self._ask("/tokenize", {"content": text})["tokens"])) > longest:
            text = text[: len(text) * longest // length]
        return text, length
