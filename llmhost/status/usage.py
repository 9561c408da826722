"""Who uses the gateway, and how much: sums of the access logs of several hosts. Pure.

files/usage/read.py sums up the log of a host. `UsageReport` is what `llmhost usage --json` prints;
docs/usage.schema.json describes it. A change of these classes changes the schema: increase SCHEMA.
"""

import csv
import io
import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from llmhost.gateway.nginx import ACCESS_LOG
from llmhost.inventory.role import Role
from llmhost.inventory.site import Site
from llmhost.resources import FILES

SCHEMA = 3


class By(StrEnum):
    """What a row of the report is for."""

    CLIENT = "client"
    MODEL = "model"
    VARIANT = "variant"
    ROUTE = "route"
    DAY = "day"
    HOST = "host"


@dataclass(frozen=True)
class UsageRow:
    """Sums of a client, model, variant, route, day or host. A variant is a model at one of its
    places, `brain/vllm`, where the gateway chooses the place by the model.

    `errors`: the gateway or an engine failed, or the engine refused the request; `refused`: the
    gateway refused it; `aborted`: the client closed the connection early. Each
    request is in at most one of them; a stream that an engine ended early is in none. `seconds` is
    the time of all requests.
    `tokens_in` and `tokens_out` are those of the `counted` requests, whose tokens the engine
    reported (`gateway_count_tokens`).
    """

    name: str
    requests: int
    errors: int
    refused: int
    aborted: int
    seconds: float
    bytes_in: int
    bytes_out: int
    counted: int
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class UsageReport:
    """The output of `llmhost usage --json`. `oldest` is the time of the oldest request by host;
    null: the host's log has none. `damaged` names the files of a host's log that cannot be read to
    their end, each with the reason; requests may be missing from the sums. `errors` says why a host
    is missing, by host."""

    schema: int
    by: By
    oldest: Mapping[str, str | None]
    rows: tuple[UsageRow, ...]
    damaged: Mapping[str, Mapping[str, str]]
    errors: Mapping[str, str]


_COUNTS = tuple(field.name for field in fields(UsageRow)[1:])


def usage_command(seconds: int) -> str:
    """Shell command for root that prints the sums of a host; 0 seconds: of its whole log."""
    script = shlex.quote((FILES / "usage/read.py").read_text(encoding="utf-8"))
    return f"python3 -I -c {script} {ACCESS_LOG} {seconds:d}"


def entry_hosts(site: Site, names: Iterable[str]) -> list[str]:
    """The hosts that clients call: a server behind a gateway of the same site logs each request
    again, as the gateway's."""
    gateways = [host.settings.gateway for host in site.values() if host.role is Role.GATEWAY]
    behind = {server.name for gateway in gateways for server in gateway.upstreams}
    found = [name for name in names if site[name].role is not Role.APP_SERVER]
    return [name for name in found if name not in behind] or found


def report(
    outputs: Mapping[str, str], errors: Mapping[str, str], by: By, client: str = ""
) -> UsageReport:
    """From the outputs of hosts, by host; of one `client`, if there is one."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    oldest: dict[str, str | None] = {}
    damaged: dict[str, Mapping[str, str]] = {}
    for host, output in outputs.items():
        found: dict[str, Any] = json.loads(output)
        oldest[host] = found["oldest"]
        if found["damaged"]:
            damaged[host] = found["damaged"]
        for row in found["rows"]:
            if not client or row["client"] == client:
                sums[_name({**row, "host": host}, by)].update({key: row[key] for key in _COUNTS})
    rows = [_row(name, counts) for name, counts in sums.items()]
    rows.sort(key=lambda row: row.name if by is By.DAY else (-row.requests, row.name))
    return UsageReport(SCHEMA, by, oldest, tuple(rows), damaged, errors)


def _name(row: Mapping[str, Any], by: By) -> str:
    """A browser interface has no client: its route is shown instead."""
    if by is By.CLIENT and not row["client"] and str(row["route"]).startswith("ui:"):
        return str(row["route"])
    return str(row[by.value])


def _row(name: str, counts: Mapping[str, float]) -> UsageRow:
    whole = {key: int(value) for key, value in counts.items() if key != "seconds"}
    return UsageRow(name=name, seconds=round(counts["seconds"], 3), **whole)


def as_csv(found: UsageReport) -> str:
    """The rows with a header, as in RFC 4180."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([found.by.value, *_COUNTS])
    writer.writerows(asdict(row).values() for row in found.rows)
    return text.getvalue()
