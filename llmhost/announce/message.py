"""Announcements: what a webhook and a mail say. Pure. They contain no output of commands, which
might hold a secret.

`DeployAnnouncement` is the JSON object of a webhook; docs/announcement.schema.json describes it. A
change of these classes changes the schema: increase SCHEMA.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from llmhost.units import duration

SCHEMA = 1
HostResult = Literal["changed", "unchanged", "failed", "unreachable", "interrupted"]
BAD: tuple[HostResult, ...] = ("failed", "unreachable", "interrupted")


@dataclass(frozen=True)
class HostEnd:
    """A host at the end of a deploy: the operations that changed something, in order, and the one
    that failed, or empty."""

    host: str
    result: HostResult
    changed: tuple[str, ...] = ()
    failed: str = ""


@dataclass(frozen=True)
class DeployAnnouncement:
    """The end of a deploy. `text` says all of it, as chat services expect it. `by` is user and
    controller; `begun` is ISO 8601, UTC."""

    schema: int
    event: Literal["deploy"]
    text: str
    result: Literal["done", "failed"]
    by: str
    begun: str
    seconds: float
    version: str
    revision: str | None
    hosts: tuple[HostEnd, ...]


@dataclass(frozen=True)
class Author:
    """Who deployed, and with which llmhost."""

    by: str
    version: str
    revision: str | None


def deploy_announcement(
    hosts: Sequence[HostEnd], author: Author, begun: str, seconds: float
) -> DeployAnnouncement:
    """The announcement of these hosts."""
    ends = tuple(sorted(hosts, key=lambda each: each.host))
    bad = [each for each in ends if each.result in BAD]
    lines = [_title(ends), *(_line(each) for each in ends)]
    revision = (author.revision or author.version)[:8]
    lines.append(f"by {author.by}, llmhost {revision}, {begun}, {duration(seconds)}")
    return DeployAnnouncement(
        schema=SCHEMA,
        event="deploy",
        text="\n".join(lines),
        result="failed" if bad else "done",
        by=author.by,
        begun=begun,
        seconds=round(seconds, 1),
        version=author.version,
        revision=author.revision,
        hosts=ends,
    )


def is_wanted(announcement: DeployAnnouncement, after: str) -> bool:
    """Whether `announce_after` includes this deploy."""
    if after == "always" or announcement.result == "failed":
        return True
    return after == "change" and any(each.changed for each in announcement.hosts)


def _title(hosts: Sequence[HostEnd]) -> str:
    counts = {word: sum(each.result == word for each in hosts) for word in get_args(HostResult)}
    ranked = (*BAD, *(word for word in counts if word not in BAD))
    some = ", ".join(f"{counts[word]} {word}" for word in ranked if counts[word])
    return f"Deploy of {len(hosts)} host{'s' if len(hosts) != 1 else ''}: {some}"


def _line(host: HostEnd) -> str:
    text = f"- {host.host}: {host.result}"
    if host.failed:
        text += f" at {host.failed}"
    return f"{text}; changed: {'; '.join(host.changed)}" if host.changed else text
