"""Which hosts `llmhost roll` changes, in which order, and how many at a time. Pure.

Nothing is remembered between runs: a host without changes that is not drained is done. Servers that
an earlier run left drained come first.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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


_CHANGEABLE = ("converged", "drift")
"""Statuses of hosts that a roll can change."""

Pools = Mapping[str, Mapping[str, str]]
"""By host, the gateways in front of it, each with the name that the host has there."""


@dataclass(frozen=True)
class RollHost:
    """A host and its plan, or those of an engine group under the name of its head: `status` and
    `errors` are those of `llmhost plan`, `upstream` its names at each gateway. `rolled`: an earlier
    roll left it drained; `by_hand`: an operator drained it with `llmhost drain`; `trains`:
    `llmhost train` did."""

    name: str
    kind: Kind
    status: str
    errors: tuple[str, ...] = ()
    upstream: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rolled: bool = False
    by_hand: bool = False
    trains: bool = False
    group: tuple[str, ...] = ()
    """Members of its engine group, the head first; empty: it is in none."""

    @property
    def is_done(self) -> bool:
        return self.status == "converged" and not self.rolled

    @property
    def is_drained(self) -> bool:
        return self.rolled or self.by_hand or self.trains

    @property
    def members(self) -> tuple[str, ...]:
        """The hosts that are deployed and verified together."""
        return self.group or (self.name,)

    @property
    def shown(self) -> str:
        """Its name, for an engine group with those of the other members."""
        head, *others = self.members
        return f"{head} with {' and '.join(others)}" if others else head


@dataclass(frozen=True)
class PoolState:
    """The servers of a gateway, by their names there, those that get no requests now, and the
    servers of each model that it routes."""

    servers: frozenset[str]
    drained: frozenset[str]
    models: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Hosts that are changed together. An engine group counts as one."""

    kind: Kind
    hosts: tuple[RollHost, ...]

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.hosts]

    @property
    def shown(self) -> str:
        return ", ".join(host.shown for host in self.hosts)


@dataclass(frozen=True)
class RollPlan:
    """`failed` cannot be changed, `left_out` were drained by hand, each with the reason; `groups`
    are the members of each engine group, by its head."""

    batches: tuple[Batch, ...]
    done: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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


def groups_as_one(hosts: Iterable[RollHost]) -> list[RollHost]:
    """These hosts, and instead of the members of each engine group one with its head's name."""
    found: dict[tuple[str, ...], list[RollHost]] = {}
    for host in hosts:
        found.setdefault(host.members, []).append(host)
    return [_as_one(each) if each[0].group else each[0] for each in found.values()]


def _as_one(members: Sequence[RollHost]) -> RollHost:
    """An engine group: it is done if all its members are, and fails if one does."""
    statuses = [each.status for each in members]
    bad = [each for each in members if each.status not in _CHANGEABLE]
    names: dict[str, tuple[str, ...]] = {}
    for each in members:
        for gateway, found in each.upstream.items():
            names[gateway] = (*names.get(gateway, ()), *found)
    return replace(
        members[0],
        name=members[0].group[0],
        kind=min((each.kind for each in members), key=[*Kind].index),
        status=bad[0].status if bad else max(statuses, key=_CHANGEABLE.index),
        errors=tuple(f"{each.name}: {error}" for each in bad for error in each.errors),
        upstream=names,
        rolled=any(each.rolled for each in members),
        by_hand=any(each.by_hand for each in members),
        trains=any(each.trains for each in members),
    )


def roll_plan(
    hosts: Sequence[RollHost], pools: Mapping[str, PoolState], size: BatchSize
) -> RollPlan:
    """The batches for these hosts, in the order of the inventory, with each engine group as one of
    them."""
    # A server that is being repaired may be switched off: that does not stop the others.
    left_out = {
        each.name: f"{each.shown} ({each.status}) was drained by hand and is left out: return it"
        " with llmhost drain --undo, and run llmhost roll again"
        for each in hosts
        if each.by_hand and not each.is_done
    }
    left_out |= {
        each.name: f"{each.shown} ({each.status}) trains an adapter and is left out: run llmhost"
        " roll again when that has ended"
        for each in hosts
        if each.trains and not each.is_done
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
    done = tuple(each.shown for each in hosts if each.is_done)
    groups = {each.name: each.group for each in hosts if each.group}
    return RollPlan(tuple(batches), done, left_out, failed, groups)


def _why_failed(host: RollHost) -> str:
    if host.status in _CHANGEABLE:
        return ""
    stays = "; it stays drained" if host.rolled else ""
    return f"{host.shown}: {host.status}: {'; '.join(host.errors)}{stays}"


def _parts(kind: Kind, hosts: Sequence[RollHost], size: int) -> Iterator[Batch]:
    for begin in range(0, len(hosts), size):
        yield Batch(kind, tuple(hosts[begin : begin + size]))


def _balanced(
    hosts: Iterable[RollHost], pools: Mapping[str, PoolState], size: int, failed: dict[str, str]
) -> Iterator[Batch]:
    """Batches that leave at least one server in each pool; hosts for which there is no other one
    are added to `failed`. A gateway that another one balances comes before its own servers: a
    gateway drains nothing as long as it differs from the inventory."""
    drained = {name: set(pool.drained) for name, pool in pools.items()}
    waiting = sorted(hosts, key=lambda host: not host.rolled)
    while waiting:
        batch: list[RollHost] = []
        later = {host.name for host in waiting}
        for host in waiting:
            is_next = len(batch) < size and not later & host.upstream.keys()
            if is_next and _leaves_one([*batch, host], pools, drained):
                batch.append(host)
        if not batch:
            failed.update({host.name: _why_not(host, later, pools, drained) for host in waiting})
            return
        yield Batch(Kind.BALANCED, tuple(batch))
        waiting = [host for host in waiting if host not in batch]
        for host in batch:
            for gateway, names in host.upstream.items():
                drained[gateway].difference_update(names)


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
    ours = {name for host in batch for name in host.upstream.get(gateway, ())}
    groups = (pools[gateway].servers, *pools[gateway].models.values())
    return any(
        (group & ours) - drained[gateway] and not group - drained[gateway] - ours
        for group in groups
    )


def _why_not(
    host: RollHost,
    waiting: Collection[str],
    pools: Mapping[str, PoolState],
    drained: Mapping[str, set[str]],
) -> str:
    if first := sorted({*waiting} & host.upstream.keys()):
        return f"{host.shown} is behind {' and '.join(first)}, which cannot be changed first"
    return _alone(host, pools, drained)


def _alone(host: RollHost, pools: Mapping[str, PoolState], drained: Mapping[str, set[str]]) -> str:
    gateway = next(each for each in pools if _last_at(each, [host], pools, drained))
    others = pools[gateway].servers - drained[gateway] - {*host.upstream[gateway]}
    of = gateway if not others else f"a model of {gateway}"
    limits = " ".join(f"--limit {name}" for name in host.members)
    return (
        f"{host.shown} is the last server of {of} that takes requests, and cannot be drained:"
        f" add another one first, or run llmhost deploy with {limits}, which interrupts"
        " its requests"
    )
