"""Clients of gateways: when their keys expire, and when they were last used. Pure.

`KeyReport` is what `llmhost key list --json` prints; docs/key-list.schema.json describes it. A
change of these classes changes the schema: increase SCHEMA.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from llmhost.options.gateway import ApiClient
from llmhost.status.report import expiry
from llmhost.units import duration

SCHEMA = 1


@dataclass(frozen=True)
class KeyStatus:
    """A client of a host. `digest` is the beginning of the key's. `last_used` is the time of the
    last request in the logs of all gateways, ISO 8601; null: there is none, or nobody asked.
    `attention` is a sentence, or empty."""

    host: str
    client: str
    state: Literal["valid", "expired", "revoked"]
    expires: str | None
    old_key_until: str | None
    digest: str
    last_used: str | None
    attention: str


@dataclass(frozen=True)
class KeyReport:
    """The output of `llmhost key list --json`. `log_begins`: before that, a use is not known; null:
    nobody asked, or there is no log. `errors` says why the log of a host could not be read."""

    schema: int
    keys: tuple[KeyStatus, ...]
    log_begins: str | None
    errors: Mapping[str, str]


@dataclass(frozen=True)
class Uses:
    """The last request of each client on all gateways, and since when the logs are complete."""

    last: Mapping[str, datetime]
    begins: datetime | None


def uses_of(outputs: Iterable[str]) -> Uses:
    """From what files/usage/read.py prints on each gateway."""
    last: dict[str, datetime] = {}
    begins: list[datetime] = []
    for output in outputs:
        found: dict[str, Any] = json.loads(output)
        for client, time in found["last"].items():
            used = datetime.fromisoformat(time)
            last[client] = max(last.get(client, used), used)
        if found["oldest"]:
            begins.append(datetime.fromisoformat(found["oldest"]))
    return Uses(last, max(begins) if begins else None)


def unused(client: ApiClient, uses: Uses, age: timedelta, now: datetime) -> str:
    """That a valid key was not used within this time; empty if it was."""
    last, since = uses.last.get(client.name), now - age
    if client.revoked or (client.expires and client.expires <= now) or (last and last >= since):
        return ""
    if last:
        return f"the key of {client.name} was last used {_day(last)}"
    if uses.begins is None:
        return f"the key of {client.name} was not used: the log is empty"
    if uses.begins > since:
        begins = f"{_day(uses.begins)}, where the log begins"
        return f"the key of {client.name} was not used since {begins}"
    return f"the key of {client.name} was not used for {duration(age.total_seconds())}"


def key_report(
    clients: Mapping[str, Sequence[ApiClient]],
    now: datetime,
    uses: Uses | None = None,
    age: timedelta | None = None,
    errors: Mapping[str, str] | None = None,
) -> KeyReport:
    """The clients of each host. With `age`, keys that were not used for as long need attention; if
    the log of a host could not be read, nothing is said of that."""
    asked = uses if age and not errors else None
    keys = tuple(
        _status(host, client, now, uses, unused(client, asked, age, now) if asked and age else "")
        for host, several in clients.items()
        for client in several
    )
    begins = uses.begins if uses else None
    return KeyReport(SCHEMA, keys, _iso(begins), errors or {})


def _status(host: str, client: ApiClient, now: datetime, uses: Uses | None, idle: str) -> KeyStatus:
    expired = client.expires is not None and client.expires <= now
    word = expiry(client.expires, now) if client.expires and not client.revoked else ""
    ending = f"the key of {client.name} {word}" if word else ""
    until = client.previous_until
    return KeyStatus(
        host=host,
        client=client.name,
        state="revoked" if client.revoked else "expired" if expired else "valid",
        expires=_iso(client.expires),
        old_key_until=_iso(until) if until and until > now else None,
        digest=client.sha256[:8],
        last_used=_iso(uses.last.get(client.name)) if uses else None,
        attention="; ".join(filter(None, (ending, idle))),
    )


def _day(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d}"


def _iso(time: datetime | None) -> str | None:
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
