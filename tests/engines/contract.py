"""What a contract of an engine consists of: the engine that a case ran against, and its summary.

A contract is a module here whose tests take the fixture `engine`, which yields an `Engine`: the
double, the real one, or each in turn as parameters `double` and `real`. No case may be skipped on
every side. `run_contract` runs a contract that is elsewhere, as a double's among the unit tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import httpx

ROOT = Path(__file__).parents[2]
Side = Literal["double", "real"]


@dataclass(frozen=True)
class Engine:
    """An engine: its name, version, and the URL at which it answers, if it runs."""

    name: str
    version: str
    side: Side
    url: str = ""

    @property
    def label(self) -> tuple[str, str, Side]:
        return self.name, self.version, self.side


def llamacpp_client(engine: Engine) -> httpx.Client:
    """A client with a connection for each request: llama.cpp may close a connection that is kept
    just when the next request comes."""
    return httpx.Client(base_url=engine.url, timeout=120, headers={"Connection": "close"})


def run_contract(tests: str, variables: Mapping[str, str], report: Path, select: str = "") -> int:
    """Run tests elsewhere, on the real engine that the variables name, if any; returns how many
    passed. None may be skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    command += ["-k", select, "--junitxml", str(report)]
    environment = {**os.environ, **variables}
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert ran.returncode == 0, ran.stdout[-8000:]
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    assert suite.get("skipped") == "0", ran.stdout[-3000:]
    return int(suite.attrib["tests"])


@dataclass(frozen=True)
class Outcome:
    """One test: its id, `passed`, `failed` or `skipped`, its engine if it got so far, and how many
    cases of the contract it consists of."""

    test: str
    outcome: str
    engine: tuple[str, str, str] | None = None
    cases: int = 1

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
            counts.setdefault(each.engine, Counter())[each.outcome] += each.cases
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
