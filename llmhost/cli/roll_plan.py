"""Which hosts `llmhost roll` changes, in which order, and how many at a time. Pure.

Nothing is remembered between runs: a host without changes that is not drained is done. Servers that
an earlier run left drained come first.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from llmhost.inventory.role import Role
from llmhost.inventory.site import Site, SiteHost, servers_of


class Kind(Enum):
    """What a roll does for hosts of this kind, in the order in which they are changed; the value is
    for people."""

    GATEWAY = "a gateway: one after the other; nginx reloads without interrupting requests"
    BALANCED = "drained first"
    ALONE = "no gateway balances it: see its plan for services that are interrupted"
    APP_SERVER = "an application server: it is not drained"


Pools = Mapping[str, Mapping[str, str]]
"""By host, the gateways in front of it, each with the name that the host has there."""


@dataclass(frozen=True)
class RollHost:
    """A host and its plan: `status` and `errors` are those of `llmhost plan`. `rolled`: an earlier
    roll left it drained; `by_hand`: an operator drained it with `llmhost drain`; `trains`:
    `llmhost train` did."""

    name: str
    kind: Kind
    status: str
    errors: tuple[str, ...] = ()
    upstream: Mapping[str, str] = field(default_factory=dict)
    rolled: bool = False
    by_hand: bool = False
    trains: bool = False
    group: tuple[str, ...] = ()
    """Members of its engine group."""

    @property
    def is_done(self) -> bool:
        return self.status == "converged" and not self.rolled


@dataclass(frozen=True)
class PoolState:
    """The servers of a gateway, by their names there, those that get no requests now, and the
    servers of each model that it routes."""

    servers: frozenset[str]
    drained: frozenset[str]
    models: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Hosts that are changed together."""

    kind: Kind
    hosts: tuple[RollHost, ...]

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.hosts]


@dataclass(frozen=True)
class RollPlan:
    """`failed` cannot be changed, `left_out` were drained by hand, each with the reason."""

    batches: tuple[Batch, ...]
    done: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchSize:
    """A number of hosts, or a percentage of them."""

    number: int
    percent: bool = False

    def of(self, hosts: int) -> int:
        """How many of these hosts are changed together, at least one."""
        return max(1, hosts * self.number // 100) if self.percent else self.number


def batch_size(text: str) -> BatchSize | None:
    """The size that an operator wrote, such as `3` or `25%`; None if it is neither."""
    match = re.fullmatch(r"([1-9][0-9]{0,3})(%?)", text.strip())
    if not match or (match[2] and int(match[1]) > 100):
        return None
    return BatchSize(int(match[1]), bool(match[2]))


def pools_of(site: Site) -> Pools:
    """The gateways in front of each host: by its name, or by its address under another name."""
    found: dict[str, dict[str, str]] = {}
    for gateway in site.values():
        for server in gateway.settings.gateway.upstreams:
            for host in servers_of(server, site):
                if host is not gateway:
                    found.setdefault(host.name, {})[gateway.name] = server.name
    return found


def kind_of(host: SiteHost, pools: Pools) -> Kind:
    """A gateway that another gateway balances is a server."""
    if host.name in pools:
        return Kind.BALANCED
    if host.role is Role.APP_SERVER:
        return Kind.APP_SERVER
    return Kind.GATEWAY if host.role is Role.GATEWAY else Kind.ALONE


def roll_plan(
    hosts: Sequence[RollHost], pools: Mapping[str, PoolState], size: BatchSize
) -> RollPlan:
    """The batches for these hosts, in the order of the inventory."""
    # A server that is being repaired may be switched off: that does not stop the others.
    left_out = {
        each.name: f"{each.name} ({each.status}) was drained by hand and is left out: return it"
        " with llmhost drain --undo, and run llmhost roll again"
        for each in hosts
        if each.by_hand and not each.is_done
    }
    left_out |= {
        each.name: f"{each.name} ({each.status}) trains an adapter and is left out: run llmhost"
        " roll again when that has ended"
        for each in hosts
        if each.trains and not each.is_done
    }
    left_out |= {
        each.name: f"{each.name} ({each.status}) is left out, because the members of its engine"
        " group change together: run llmhost deploy with"
        f" {' '.join(f'--limit {name}' for name in each.group)}"
        for each in hosts
        if each.group and not (each.is_done or each.name in left_out)
    }
    failed = {
        each.name: why for each in hosts if each.name not in left_out and (why := _why_failed(each))
    }
    todo = [
        each for each in hosts if not (each.is_done or each.name in failed or each.name in left_out)
    ]
    batches: list[Batch] = []
    for kind in Kind:
        ours = [each for each in todo if each.kind is kind]
        count = size.of(sum(each.kind is kind for each in hosts))
        if kind is Kind.BALANCED:
            batches += _balanced(ours, pools, count, failed)
        else:
            batches += _parts(kind, ours, 1 if kind is Kind.GATEWAY else count)
    done = tuple(each.name for each in hosts if each.is_done)
    return RollPlan(tuple(batches), done, left_out, failed)


def _why_failed(host: RollHost) -> str:
    if host.status in ("converged", "drift"):
        return ""
    stays = "; it stays drained" if host.rolled else ""
    return f"{host.name}: {host.status}: {'; '.join(host.errors)}{stays}"


def _parts(kind: Kind, hosts: Sequence[RollHost], size: int) -> Iterator[Batch]:
    for begin in range(0, len(hosts), size):
        yield Batch(kind, tuple(hosts[begin : begin + size]))


def _balanced(
    hosts: Iterable[RollHost], pools: Mapping[str, PoolState], size: int, failed: dict[str, str]
) -> Iterator[Batch]:
    """Batches that leave at least one server in each pool; hosts for which there is no other one
    are added to `failed`."""
    drained = {name: set(pool.drained) for name, pool in pools.items()}
    waiting = sorted(hosts, key=lambda host: not host.rolled)
    while waiting:
        batch: list[RollHost] = []
        for host in waiting:
            if len(batch) < size and _leaves_one([*batch, host], pools, drained):
                batch.append(host)
        if not batch:
            failed.update({host.name: _alone(host, pools, drained) for host in waiting})
            return
        yield Batch(Kind.BALANCED, tuple(batch))
        waiting = [host for host in waiting if host not in batch]
        for host in batch:
            for gateway, name in host.upstream.items():
                drained[gateway].discard(name)


def _leaves_one(
    batch: Sequence[RollHost], pools: Mapping[str, PoolState], drained: Mapping[str, set[str]]
) -> bool:
    return not any(_last_at(gateway, batch, pools, drained) for gateway in pools)


def _last_at(
    gateway: str,
    batch: Sequence[RollHost],
    pools: Mapping[str, PoolState],
    drained: Mapping[str, set[str]],
) -> bool:
    """Whether this batch would leave a gateway in front of it, or one of its models, without a
    server."""
    ours = {host.upstream[gateway] for host in batch if gateway in host.upstream}
    groups = (pools[gateway].servers, *pools[gateway].models.values())
    return any(
        (group & ours) - drained[gateway] and not group - drained[gateway] - ours
        for group in groups
    )


def _alone(host: RollHost, pools: Mapping[str, PoolState], drained: Mapping[str, set[str]]) -> str:
    gateway = next(each for each in pools if _last_at(each, [host], pools, drained))
    others = pools[gateway].servers - drained[gateway] - {host.upstream[gateway]}
    of = gateway if not others else f"a model of {gateway}"
    return (
        f"{host.name} is the last server of {of} that takes requests, and cannot be drained:"
        f" add another one first, or run llmhost deploy with --limit {host.name}, which interrupts"
        " its requests"
    )
