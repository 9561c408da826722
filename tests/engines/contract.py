"""What a contract of an engine consists of: the engine that a case ran against, and its summary.

A contract is a module here whose tests take the fixture `engine`, which yields an `Engine`: the
double, the real one, or each in turn as parameters `double` and `real`. No case may be skipped on
every side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import httpx

Side = Literal["double", "real"]


@dataclass(frozen=True)
class Engine:
    """An engine that runs: its name, version, and the URL at which it answers."""

    name: str
    version: str
    side: Side
    url: str

    @property
    def label(self) -> tuple[str, str, Side]:
        return self.name, self.version, self.side


def llamacpp_client(engine: Engine) -> httpx.Client:
    """A client with a connection for each request: llama.cpp may close a connection that is kept
    just when the next request comes."""
    return httpx.Client(base_url=engine.url, timeout=120, headers={"Connection": "close"})


@dataclass(frozen=True)
class Outcome:
    """One test: its id, `passed`, `failed` or `skipped`, and its engine if it got so far."""

    test: str
    outcome: str
    engine: tuple[str, str, str] | None = None

    @property
    def case(self) -> str:
        """The test, whichever side it ran against."""
        name, _, parameters = self.test.partition("[")
        parts = parameters.removesuffix("]").split("-")
        kept = [part for part in parts if part not in ("double", "real", "")]
        return name + (f"[{'-'.join(kept)}]" if kept else "")


def summary(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Rows of engine, version, side and results."""
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for each in outcomes:
        if each.engine:
            counts.setdefault(each.engine, Counter())[each.outcome] += 1
    rows = [("engine", "version", "side", "cases", "passed")]
    for (name, version, side), found in sorted(counts.items()):
        rows.append((name, version, side, str(found.total()), str(found["passed"])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if counts else ():
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def unproven(outcomes: Iterable[Outcome]) -> list[str]:
    """Cases that no side has run."""
    ran: dict[str, bool] = {}
    for each in outcomes:
        ran[each.case] = ran.get(each.case, False) or each.outcome != "skipped"
    return [case for case, any_side in ran.items() if not any_side]
