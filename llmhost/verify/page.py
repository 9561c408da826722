"""The page of `llmhost verify --html`: one file without scripts and network access.

Output of servers is text only: the template escapes everything, and the page's policy forbids
browsers to load or run anything.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from llmhost.template import render
from llmhost.units import duration, gib
from llmhost.verify.report import (
    ON_A_DOUBLE,
    ON_HARDWARE,
    ON_THE_SERVER,
    OTHER,
    Check,
    Component,
    MemoryUse,
    Report,
    ReportedGpu,
    Server,
)

_PROOFS = (
    (ON_HARDWARE, "hardware", "used a real GPU"),
    (ON_THE_SERVER, "server", "needed no GPU"),
    (
        ON_A_DOUBLE,
        "double",
        "ran with a simulated GPU: NVIDIA's driver was not tested",
    ),
)
"""Label, CSS class and meaning of the proof of a passed check."""


def page(report: Report) -> str:
    """The whole page as HTML."""
    return render(
        "report/verify.html.j2",
        report=report,
        verdict=verdict(report),
        proofs=_PROOFS,
        standing=standing,
        failures=_failures,
        ordered=_ordered,
        duration=duration,
        gib=gib,
        percent=percent,
        part_class=_part_class,
        title=_title,
        moment=_moment,
    )


def standing(report: Report, server: Server) -> tuple[str, str]:
    """State of a server: a CSS class, and a few words."""
    outcomes = [check.outcome for check in report.checks if check.host == server.host]
    if not server.answers:
        return "bad", "does not answer"
    if failed := outcomes.count("failed"):
        return "bad", f"{failed} failed"
    if server.host in report.unended:
        return "bad", "its checks did not end"
    if "passed" not in outcomes:
        return "bad", "nothing was proven"
    plan = report.plan(server.host)
    if plan is None or plan["status"] in ("failed", "unreachable"):
        return "warn", "drift is unknown"
    if plan["status"] in _DRIFTED:
        return "warn", _DRIFTED[plan["status"]]
    return "good", "as declared"


_DRIFTED = {"drift": "has drifted", "refused": "a deploy is refused"}
"""Statuses of `llmhost plan`, and their text on the page."""


def verdict(report: Report) -> tuple[str, str]:
    """The page in one sentence, with its CSS class."""
    servers = len(report.servers)
    grades = [standing(report, server)[0] for server in report.servers]
    if bad := grades.count("bad"):
        return "bad", f"{_some(bad, servers)} not as the inventory declares"
    if not servers or report.failed:
        return "bad", "Nothing was proven" if not servers else "A check failed"
    if report.is_broken:
        return "bad", "The checks did not end"
    if warn := grades.count("warn"):
        states = {standing(report, server)[1] for server in report.servers}
        if states & set(_DRIFTED.values()):
            return "warn", f"Every check passed, and {_some(warn, servers).lower()} not as deployed"
        return "warn", "Every check passed; drift is unknown"
    every = "The server is" if servers == 1 else f"All {servers} servers are"
    return "good", f"{every} as declared"


def _some(some: int, of_all: int) -> str:
    if of_all == 1:
        return "The server is"
    return f"{some} of {of_all} servers {'is' if some == 1 else 'are'}"


def _failures(report: Report) -> list[list[Check]]:
    """Failed checks by server and component: those of one component often have one cause."""
    groups: dict[tuple[str, str], list[Check]] = {}
    for check in report.failed:
        groups.setdefault((check.host, check.component), []).append(check)
    return list(groups.values())


_ORDER = (
    *("connection", "system", "nvidia_driver", "docker", "container_toolkit", "egress"),
    *("firewall", "gateway", "stack"),
)
_LAST = ("gpu", "receipt")


def _ordered(components: Sequence[Component]) -> list[Component]:
    """In the order of a deploy; services and other components come after the stack."""
    places = {label: place for place, label in enumerate(_ORDER)}
    places |= {label: len(components) + len(_ORDER) + place for place, label in enumerate(_LAST)}
    return sorted(components, key=lambda each: places.get(each.label, len(_ORDER)))


def percent(share: MemoryUse, gpu: ReportedGpu) -> str:
    """A share of a GPU's memory, for the width of its bar."""
    return f"{min(100.0, 100 * share.size / gpu.memory_total):.2f}" if gpu.memory_total else "0"


def _part_class(share: MemoryUse, number: int) -> str:
    """The color of a part of a GPU's bar: verify.css has six."""
    return "unchecked" if share.owner == OTHER else f"part-{number % 6}"


def _title(component: str) -> str:
    """A component's name for a heading: `nvidia_driver` is `NVIDIA driver`."""
    words = component.split("_")
    return " ".join(word.upper() if word in ("gpu", "nvidia") else word for word in words)


def _moment(time: str) -> str:
    """A time in ISO 8601 in readable form; other text does not change."""
    try:
        return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return time
