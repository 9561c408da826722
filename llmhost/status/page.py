"""The page of `llmhost page`: one file without scripts and network access, of the same JSON objects
that the commands print. Pure.

Like the page of `llmhost verify --html`, it escapes all that servers say, and its policy forbids
browsers to load or run anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmhost.status.gpu_history import Values
from llmhost.template import render
from llmhost.units import MIB, duration, gib
from llmhost.verify.report import Report

USAGE = ("client", "model", "day")
"""What usage is shown by."""

Grade = tuple[str, str]
"""A CSS class, and words."""


@dataclass(frozen=True)
class Overview:
    """What the page shows. `hosts` are those of `llmhost status --json`, `plans` those of `llmhost
    plan --json`, `usage` are the objects of `llmhost usage --json` by what a row is for, and `gpus`
    that of `llmhost gpus --json`, if a host keeps metrics. `problems` say by part why it is
    missing; `checks` is None if `llmhost verify` did not run."""

    inventory: str
    time: str
    toolkit: str
    hosts: Sequence[Mapping[str, Any]] = ()
    plans: Sequence[Mapping[str, Any]] = ()
    usage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gpus: Mapping[str, Any] | None = None
    checks: Report | None = None
    problems: Mapping[str, str] = field(default_factory=dict)

    def plan(self, host: str) -> Mapping[str, Any] | None:
        """The plan of a host, if it was compared with its inventory."""
        return next((each for each in self.plans if each["host"] == host), None)

    def past(self, host: str, index: int) -> Mapping[str, Any] | None:
        """A GPU over time, if it is known."""
        known = self.gpus["gpus"] if self.gpus else ()
        wanted = host, index
        return next((each for each in known if (each["host"], each["index"]) == wanted), None)

    @property
    def failed(self) -> bool:
        """Whether a host or a part could not be read, or the checks did not end."""
        plans = {"refused", "failed", "unreachable"}
        unread = [each for each in self.hosts if each["status"] == "error"]
        if self.checks and self.checks.is_broken:
            return True
        return bool(self.problems or unread or [p for p in self.plans if p["status"] in plans])

    @property
    def needs_attention(self) -> bool:
        """Whether an operator should do something."""
        grades = {standing(self, each)[0] for each in self.hosts}
        return bool(grades - {"good"} or (self.checks and self.checks.failed))


def standing(overview: Overview, host: Mapping[str, Any]) -> Grade:
    """The state of a host."""
    failed = overview.checks.failed if overview.checks else ()
    checks = sum(check.host == host["host"] for check in failed)
    if host["status"] == "error":
        return "bad", "cannot be read"
    if checks:
        return "bad", f"{checks} check{'s' if checks > 1 else ''} failed"
    if overview.checks and host["host"] in overview.checks.unended:
        return "bad", "its checks did not end"
    plan = overview.plan(host["host"])
    if plan is not None and plan["status"] in _PLANS:
        return _PLANS[plan["status"]]
    return ("warn", "needs attention") if host["status"] == "attention" else ("good", "is fine")


_PLANS: Mapping[str, Grade] = {
    "drift": ("warn", "has drifted"),
    "refused": ("bad", "a deploy is refused"),
    "failed": ("bad", "cannot be compared"),
    "unreachable": ("bad", "cannot be compared"),
}


def verdict(overview: Overview) -> Grade:
    """The page in one sentence."""
    grades = [standing(overview, each)[0] for each in overview.hosts]
    count = len(grades)
    if not count:
        return "bad", "Nothing is known of the hosts"
    for grade, words in (("bad", "broken or unknown"), ("warn", "in need of attention")):
        if number := grades.count(grade):
            verb = "is" if number == 1 else "are"
            return grade, f"{number} of {count} hosts {verb} {words}"
        if grade == "bad" and overview.checks and overview.checks.is_broken:
            return "bad", "The checks did not end"
    return "good", "The host is fine" if count == 1 else f"All {count} hosts are fine"


def share(part: float | None, whole: float | None) -> str:
    """A part of a whole in percent, for the width of a bar."""
    return f"{min(100.0, 100 * (part or 0) / whole):.1f}" if whole else "0"


def curve(values: Values, whole: float | None) -> list[str]:
    """Values as points of SVG polylines in a square of 100 by 100; a gap begins another line."""
    width = max(1, len(values) - 1)
    lines: list[list[str]] = []
    current: list[str] = []
    for number, value in enumerate(values):
        if value is None or not whole:
            lines, current = [*lines, current], []
        else:
            height = 100 - min(100.0, 100 * value / whole)
            current.append(f"{100 * number / width:.1f},{height:.1f}")
    return [" ".join(line) for line in [*lines, current] if line]


def _state(state: str) -> str:
    """The CSS class of a service's state."""
    known = {"healthy": "good", "running": "good", "starting": "warn", "stopped": "warn"}
    return known.get(state, "warn" if state == "unknown" else "bad")


def _mib(size: float | None) -> str:
    return gib(None if size is None else size * MIB)


def page(overview: Overview) -> str:
    """The whole page as HTML."""
    return render(
        "report/page.html.j2",
        overview=overview,
        verdict=verdict(overview),
        standing=standing,
        share=share,
        curve=curve,
        state_class=_state,
        usage_kinds=USAGE,
        nobody={"client": "no valid key", "model": "not known"},
        duration=duration,
        gib=gib,
        mib=_mib,
    )
