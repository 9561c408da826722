"""Policies of the gateway's clients, and the nginx maps from keys to policies."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from llmhost.options.gateway import ApiClient
from llmhost.options.networks import IpNetwork

HEADER = "# managed by llmhost: edit the inventory instead\n"
REVOKED = "revoked"


@dataclass(frozen=True, order=True)
class Rate:
    """A rate of requests, and a burst in excess of it."""

    per_minute: int
    burst: int

    @property
    def patience_seconds(self) -> int:
        """Whole seconds until there is a place for the next request."""
        return ceil(60 / self.per_minute)


@dataclass(frozen=True)
class ClientPolicy:
    """Limits that several clients can share; None means no limit. `scope` is a word, or names of
    services and models, of which one may be called like such a word."""

    scope: str | tuple[str, ...]
    sources: tuple[IpNetwork, ...] | None
    rate: Rate | None
    streams: int | None
    tokens: int | None = None

    @classmethod
    def of(cls, client: ApiClient) -> "ClientPolicy":
        pace = client.requests_per_minute
        return cls(
            client.scope,
            client.sources,
            Rate(pace, client.burst) if pace else None,
            client.concurrent_streams,
            client.tokens_per_day,
        )

    @property
    def controls(self) -> bool:
        """Whether its clients may change engines for all others."""
        return self.scope == "admin"

    def admits(self, service: str, scope: str) -> bool:
        """Whether a route of that service and scope may be called."""
        if self.controls or self.scope == scope:
            return True
        return scope == "inference" and service in self.named

    def may_use(self, model: str, services: Iterable[str]) -> bool:
        """Whether requests may name a model that these services run."""
        named = self.named
        return self.may_infer or model in named or {*services} <= {*named}

    @property
    def named(self) -> tuple[str, ...]:
        """Services and models that its clients may use, if it names them."""
        return () if isinstance(self.scope, str) else self.scope

    @property
    def may_infer(self) -> bool:
        """Whether its clients may use all models."""
        return self.scope in ("admin", "inference")


def policies_of(clients: Sequence[ApiClient]) -> tuple[ClientPolicy, ...]:
    """The distinct policies; each is numbered by its position, from 1."""
    return tuple(dict.fromkeys(map(ClientPolicy.of, clients)))


def key_maps(clients: Sequence[ApiClient]) -> dict[str, str]:
    """nginx maps by file: from a key's digest to its number, and from the number to the client's
    name, its policy and, for a key that expires, the time in seconds since the epoch, or
    `revoked`."""
    files = ("keys.map", "clients.map", "policies.map", "until.map")
    lines: dict[str, list[str]] = {file: [] for file in files}
    numbers = {policy: number for number, policy in enumerate(policies_of(clients), start=1)}
    keys = ((client, *key) for client in clients for key in _keys(client))
    for number, (client, digest, until) in enumerate(keys, start=1):
        policy = _policy_value(numbers[ClientPolicy.of(client)], client, until)
        lines["keys.map"].append(f"{digest} {number};\n")
        lines["clients.map"].append(f"{number} {client.name};\n")
        lines["policies.map"].append(f"{number} {policy};\n")
        lines["until.map"] += [f"{number} {until};\n"] if until else []
    return {file: HEADER + "".join(each) for file, each in lines.items()}


def _policy_value(number: int, client: ApiClient, until: str) -> str:
    """The policy's number, or a variable that has it under a condition."""
    if until == REVOKED:
        return '""'
    if until:
        return f"$gateway_ending_policy_{number}"
    return f"$gateway_policy_{number}" if client.sources else str(number)


def _keys(client: ApiClient) -> Iterator[tuple[str, str]]:
    ends = [client.expires] if client.expires else []
    yield client.sha256, _until(client, ends)
    if client.previous_sha256 and client.previous_until:
        yield client.previous_sha256, _until(client, [*ends, client.previous_until])


def _until(client: ApiClient, ends: Sequence[datetime]) -> str:
    if client.revoked:
        return REVOKED
    return str(int(min(ends).timestamp())) if ends else ""
