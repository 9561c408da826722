"""Logs of services and of the gateway: the command for a host, and its lines for people. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from llmhost.gateway.nginx import ACCESS_LOG
from llmhost.resources import script

GATEWAY = "gateway"
HEADER = (
    f"{'time':<25} {'client':<16} {'request':<32} {'status':<24} {'first byte':>10} {'total':>9}"
    f" {'in':>9} {'out':>9}"
)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_HIDDEN = "[hidden]"
# A service should log neither; an extra argument or a debug level may make it do so.
_SECRETS = (
    re.compile(r"llmhost-[0-9a-f]{64}"),
    re.compile(r"(?i)(?<=\bbearer )[!-~]+"),
    re.compile(r"(?i)(?<=x-api-key: )[!-~]+"),
    # vLLM with --enable-log-requests.
    re.compile(r"(?<=prompt: )'.*', (?=params: )"),
    re.compile(r"(?<=prompt: )\".*\", (?=params: )"),
)


@dataclass(frozen=True)
class Selection:
    """Lines of a log: the last `lines` (none: all), not older than `seconds`, that match the
    extended regular expression `pattern`; with `follow` also those that are still to come."""

    lines: int | None = None
    seconds: int | None = None
    pattern: str = ""
    follow: bool = False


@dataclass(frozen=True)
class ServiceLine:
    """A line of `llmhost logs SERVICE --json`."""

    host: str
    line: str


@dataclass(frozen=True)
class GatewayLine:
    """A line of `llmhost logs gateway --json`: a request, as nginx logs it. Times are in seconds.
    Values that are known of some requests only are empty for the others; `first_byte_seconds` has
    one for each server that was tried."""

    host: str
    time: str
    id: str
    client: str
    address: str
    method: str
    route: str
    status: int
    refusal: str
    bytes_in: int
    bytes_out: int
    first_byte_seconds: str
    seconds: float
    complete: str = ""
    model: str = ""
    tokens_in: str = ""
    tokens_out: str = ""
    day_tokens: str = ""
    variant: str = ""


LogLine = ServiceLine | GatewayLine
"""Each line of the output is such an object."""


def seconds_of(age: str) -> int:
    """Seconds of an age such as `90s`, `10m`, `2h` or `3d`. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", age)
    if not match:
        raise ValueError(age)
    return int(match[1]) * _SECONDS[match[2]]


def age_of(age: str) -> timedelta:
    """The same as a difference of times. Raises ValueError."""
    return timedelta(seconds=seconds_of(age))


def log_command(project: str, service: str, selection: Selection) -> str:
    """Shell command for root that prints the lines of a service, or of `gateway`."""
    kind, name = ("container", f"{project}-{service}-1")
    if service == GATEWAY:
        kind, name = "gateway", ACCESS_LOG
    return script(
        "logs/read.sh",
        *(kind, name),
        "all" if selection.lines is None else str(selection.lines),
        "" if selection.seconds is None else str(selection.seconds),
        selection.pattern,
        "yes" if selection.follow else "",
    )


def without_secrets(line: str) -> str:
    """A line of a service's log without API keys and prompts."""
    for secret in _SECRETS:
        line = secret.sub(_HIDDEN, line)
    return line


def request(line: str) -> Mapping[str, Any] | None:
    """A request from a line of the gateway's log; None if it is not one."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def row(found: Mapping[str, Any]) -> str:
    """A request as a row below HEADER."""
    status = f"{found['status']} {found['refusal']}".rstrip()
    first = found["first_byte_seconds"].rpartition(" ")[2]
    return (
        f"{found['time']:<25} {found['client'] or '–':<16}"
        f" {found['method'] + ' ' + (found['route'] or '–'):<32} {status:<24}"
        f" {first + ' s' if first[:1].isdigit() else '–':>10} {found['seconds']:>7.3f} s"
        f" {found['bytes_in']:>9} {found['bytes_out']:>9}"
    )
