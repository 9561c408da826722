"""`llmhost roll`: deploy batch by batch, each drained, verified and returned to the pool.

The deploy, the drain and `verify` are those of their own commands. What an earlier run did is seen
from the hosts (docs/decisions/0154).
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import typer
from pyinfra.api import Host, State
from pyinfra.api.exceptions import PyinfraError
from rich.console import Console
from rich.markup import escape

from llmhost.cli.arguments import Inventory, Limit
from llmhost.cli.deploy import deploy_file
from llmhost.cli.drain import await_end, drain_call
from llmhost.cli.errors import DRIFT, ERROR, stop
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.locked_operations import run_locked
from llmhost.cli.parallel import run_on_each
from llmhost.cli.plan import host_plan
from llmhost.cli.roll_plan import (
    Batch,
    BatchSize,
    Kind,
    Pools,
    PoolState,
    RollHost,
    RollPlan,
    batch_size,
    groups_as_one,
    kind_of,
    pools_of,
    roll_plan,
)
from llmhost.cli.run import run_pyinfra
from llmhost.cli.session import checked_site, connected, dry_run, hosts_within
from llmhost.cli.verify import failing_hosts
from llmhost.facts.files import PathStates
from llmhost.facts.upstreams import SilentUpstreams
from llmhost.gateway.nginx import NginxState
from llmhost.gateway.pool import Drained, Marks, Pool, mark_path, marks_of
from llmhost.gateway.tree import NginxPaths, pool
from llmhost.inventory.site import Site, group_of
from llmhost.operations.changes import reasons
from llmhost.operations.host_channel import LOST
from llmhost.settings import Settings
from llmhost.status.plan import HostPlan
from llmhost.status.probe import probe_command
from llmhost.status.report import host_status
from llmhost.system.files import PathState

ANSWER_SECONDS = 60
_console = Console(soft_wrap=True, highlight=False)


def roll(
    inventory: Inventory,
    batch: Annotated[
        str, typer.Option(help="Servers to change together: a number or a percentage")
    ] = "1",
    max_failed: Annotated[
        int, typer.Option(min=0, help="Continue until more hosts than this have failed")
    ] = 0,
    wait: Annotated[
        int, typer.Option(min=0, help="Seconds to wait for open requests to finish")
    ] = 300,
    interrupt: Annotated[
        bool, typer.Option("--interrupt", help="After that time, deploy and interrupt them")
    ] = False,
    limit: Limit = None,
    preview: Annotated[
        bool, typer.Option("--dry-run", help="Only show the batches, and what is left out")
    ] = False,
) -> None:
    """Deploy batch by batch: drain, deploy, verify, and return to the pool.

    Hosts without changes are left alone. Gateways come first, then the servers behind them: at
    least one healthy server of each gateway takes requests at any time. Hosts that no gateway
    balances are not drained. An engine group is one server: all members are deployed and verified
    together, also if --limit names only one. The first batch that fails ends the roll; its servers
    stay drained, and the next run continues with them. Exit status: 0 all hosts are done, 2 hosts
    were left out or, with --dry-run, would change, 1 a host failed.
    """
    size = batch_size(batch)
    if size is None:
        stop(f"--batch {batch}: is no number and no percentage of hosts; write 2 or 25%")
    site, names = _site(inventory, limit or [])
    rolling = _Roll(inventory, site, pools_of(site), wait, interrupt)
    plan = rolling.plan(names, size)
    _show(plan)
    if preview:
        raise typer.Exit(ERROR if plan.failed else DRIFT if plan.batches or plan.left_out else 0)
    rolling.failed.update(plan.failed)
    if len(plan.failed) > max_failed:
        stop(
            "nothing was changed: see above for what prevents it; to roll the other hosts only, use"
            f" --limit or --max-failed {len(plan.failed)}"
        )
    try:
        remaining = rolling.run(plan.batches, max_failed)
    except KeyboardInterrupt:
        remaining = rolling.remaining
        _error("interrupted")
    _report(rolling, plan, remaining)
    if rolling.failed or remaining:
        raise typer.Exit(ERROR)
    raise typer.Exit(DRIFT if plan.left_out else 0)


def _site(path: str, limit: Sequence[str]) -> tuple[Site, list[str]]:
    """The hosts of the inventory, and the names of those within the limit, with the other members
    of their engine groups. Mistakes of gateways count, too: they decide which hosts can be
    drained."""
    loaded = load_inventory(path)
    within = {host.name for host in hosts_within(loaded, limit)}
    data = {host.name: host.data.dict() for host in loaded}
    groups = {name: group_of(name, data.values()) for name in data}
    hosts = [each for each in loaded if within & {*groups[each.name]}]
    gateways = [each for each in loaded if "gateway_upstreams" in data[each.name]]
    site = checked_site(loaded, {*hosts, *gateways})
    for name in (each.name for each in hosts if each.name not in within):
        named = next(each for each in groups[name] if each in within)
        _console.print(
            f"{escape(name)} is included, because it is in one engine group with {escape(named)}"
        )
    return site, [host.name for host in hosts]


@dataclass
class _Roll:
    """One run. `failed` are hosts with the reason; `drained` those that get no requests now. An
    engine group is one host, with the name of its head."""

    inventory: str
    site: Site
    pools: Pools
    wait: int
    interrupt: bool
    failed: dict[str, str] = field(default_factory=dict)
    drained: dict[str, RollHost] = field(default_factory=dict)
    remaining: list[RollHost] = field(default_factory=list)

    def plan(self, names: Sequence[str], size: BatchSize) -> RollPlan:
        """Compare the hosts with the inventory; stops if a gateway in front of them fails."""
        gateways = sorted({gateway for name in names for gateway in self.pools.get(name, ())})
        with dry_run(self.inventory, sorted({*names, *gateways})) as (state, messages):
            hosts = {host.name: host for host in state.inventory if state.is_host_in_limit(host)}
            plans = {name: host_plan(state, host, messages) for name, host in hosts.items()}
            broken = [each for name in gateways if (each := plans[name]).errors]
            if broken:
                stop(*(_broken(each) for each in broken))
            marks = {name: _marks(hosts[name], self._settings(name)) for name in gateways}
        states = {name: _state(self._settings(name), marks[name]) for name in gateways}
        found = groups_as_one(self._host(plans[name], marks) for name in names)
        self.drained = {each.name: each for each in found if each.is_drained}
        return roll_plan(found, states, size)

    def _host(self, plan: HostPlan, marks: Mapping[str, Marks]) -> RollHost:
        upstream = self.pools.get(plan.host, {})
        found = (marks[gateway].get(name) for gateway, name in upstream.items())
        by = {owner for owner in found if owner}
        kind = kind_of(self.site[plan.host], self.pools)
        settings = self._settings(plan.host)
        return RollHost(
            plan.host,
            kind,
            plan.status,
            plan.errors,
            {gateway: (name,) for gateway, name in upstream.items()},
            rolled=Drained.BY_ROLL in by,
            by_hand=Drained.BY_HAND in by,
            trains=Drained.BY_TRAINING in by,
            group=settings.engine_group.names if settings.member else (),
        )

    def _settings(self, name: str) -> Settings:
        return self.site[name].settings

    def run(self, batches: Sequence[Batch], max_failed: int) -> list[RollHost]:
        """Change batch after batch; returns the hosts that were not reached."""
        self._check_gateways(batches)
        for number, batch in enumerate(batches, start=1):
            self.remaining = [host for later in batches[number - 1 :] for host in later.hosts]
            if len(self.failed) > max_failed:
                return self.remaining
            _heading(f"Batch {number} of {len(batches)}: {batch.shown}")
            self._change(batch)
        self.remaining = []
        return []

    def _check_gateways(self, batches: Sequence[Batch]) -> None:
        """Before servers are drained, the gateways in front of them must work that the roll does
        not change: an earlier run may have ended between their deploy and their check."""
        changed = {host.name for batch in batches for host in batch.hosts}
        used = {gateway for batch in batches for host in batch.hosts for gateway in host.upstream}
        unchanged = sorted(used - changed)
        self.remaining = [host for batch in batches for host in batch.hosts]
        if unchanged:
            _heading(f"Verify {', '.join(unchanged)}")
        if unchanged and (failing := failing_hosts(self.inventory, unchanged)):
            stop(
                *(
                    f"{name}: verify failed: see its output above; nothing was changed"
                    for name in failing
                )
            )

    def _change(self, batch: Batch) -> None:
        todo = {host.name: host for host in batch.hosts}
        steps = [self._deploy, self._verify]
        if batch.kind is Kind.BALANCED:
            steps = [self._drain, *steps, self._return]
        for step in steps:
            if not todo:
                return
            with self._reported(todo):
                failed = step(todo)
                self.failed.update(failed)
                todo = {name: host for name, host in todo.items() if name not in failed}
        for host in todo.values():
            _console.print(f"[green]{escape(host.shown)}: done[/green]")

    @contextmanager
    def _reported(self, todo: dict[str, RollHost]) -> Iterator[None]:
        """An error that ends a step is one of all its hosts."""
        try:
            yield
        except typer.Exit:  # `stop` has printed the reason
            self.failed.update(dict.fromkeys(todo, "see the error above"))
            todo.clear()
        except (PyinfraError, *LOST) as error:
            why = f"the connection was lost: {error or type(error).__name__}"
            self.failed.update(dict.fromkeys(todo, why))
            todo.clear()

    def _drain(self, hosts: Mapping[str, RollHost]) -> dict[str, str]:
        gateways, members = _by_gateway(hosts), _members(hosts)
        others = {
            name
            for name, upstream in self.pools.items()
            if gateways.keys() & upstream.keys() and name not in members
        }
        # The roll has checked its own hosts: mistakes of others do not matter.
        with connected(self.inventory, [*gateways, *others], strict=False) as (state, _):
            if missing := _missing(state, gateways):
                return dict.fromkeys(hosts, missing)
            ours = {host: gateways[host.name] for host in state.active_hosts & _of(state, gateways)}
            sick = self._sick(state, others)
            for gateway, names in ours.items():
                if why := _last_healthy(gateway, self._settings(gateway.name), names, sick):
                    return dict.fromkeys(hosts, why)
            before = dict(self.drained)
            self.drained.update(hosts)
            if failed := self._at_gateways(state, ours, undo=False):
                if len(failed) == len(ours):
                    self.drained = before
                return dict.fromkeys(hosts, _sentence(failed))
            settings = {name: self._settings(name) for name in gateways}
            upstreams = {name: self.pools[name] for name in members if name in self.pools}
            left = await_end(sorted(ours, key=str), settings, upstreams, self.wait)
        busy = {members[name]: self._busy(count) for name, count in left.items() if count}
        return {} if self.interrupt else busy

    def _busy(self, count: int) -> str:
        return (
            f"{count} connections were still open after {self.wait} s; it was not changed. To wait"
            " longer, rerun the command with --wait; to interrupt them, with --interrupt"
        )

    def _sick(self, state: State, others: set[str]) -> dict[str, set[str]]:
        """Services that are not healthy, by host; hosts that do not answer are left to the
        gateway's view of them."""
        asked = {
            host: probe_command(self.site[host.name])
            for host in state.active_hosts
            if host.name in others
        }
        answers = run_on_each(asked, ANSWER_SECONDS)
        sick: dict[str, set[str]] = {}
        for name, answer in answers.items():
            services = host_status(self.site[name], answer.output).services
            bad = {each.name for each in services if each.state not in ("healthy", "running")}
            for upstream in self.pools[name].values():
                sick.setdefault(upstream, set()).update(bad)
        return sick

    def _at_gateways(
        self, state: State, servers: Mapping[Host, Sequence[str]], *, undo: bool
    ) -> dict[str, list[str]]:
        """Drain servers, or return them; returns the gateways where that failed, and why."""
        calls = {
            host: drain_call(self._settings(host.name), names, undo=undo, by=Drained.BY_ROLL)
            for host, names in servers.items()
        }
        failed = run_locked(state, calls)
        for host, names in servers.items():
            if host.name not in failed:
                # About servers that an operator has drained meanwhile.
                notes = [each for op in host.op_hash_order for each in reasons(host, op).notes]
                verb = "sends requests to" if undo else "sends no new requests to"
                done = [name for name in names if not any(n.startswith(f"{name} ") for n in notes)]
                if done:
                    _console.print(f"{escape(host.name)} {verb} {escape(', '.join(done))}")
                for sentence in notes:
                    _console.print(f"[yellow]{escape(sentence)}[/yellow]")
        return failed

    def _return(self, hosts: Mapping[str, RollHost]) -> dict[str, str]:
        gateways = _by_gateway(hosts)
        with connected(self.inventory, list(gateways)) as (state, _):
            if missing := _missing(state, gateways):
                return dict.fromkeys(hosts, missing)
            ours = {host: gateways[host.name] for host in state.active_hosts & _of(state, gateways)}
            if failed := self._at_gateways(state, ours, undo=True):
                return dict.fromkeys(hosts, _sentence(failed))
        for name in hosts:
            self.drained.pop(name, None)
        return {}

    def _deploy(self, hosts: Mapping[str, RollHost]) -> dict[str, str]:
        members = _members(hosts)
        limits = [f"--limit={name}" for name in members]
        if run_pyinfra(self.inventory, deploy_file(), "-y", *limits) == 0:
            return {}
        failed = list(hosts)
        if len(hosts) > 1:
            with dry_run(self.inventory, list(members)) as (state, messages):
                plans = [host_plan(state, host, messages) for host in _of(state, members)]
            failed = [members[each.host] for each in plans if each.status != "converged"]
        return dict.fromkeys(failed, "the deploy failed: see its output above")

    def _verify(self, hosts: Mapping[str, RollHost]) -> dict[str, str]:
        members = _members(hosts)
        failing: dict[str, list[str]] = {}
        for member in failing_hosts(self.inventory, list(members)):
            failing.setdefault(members[member], []).append(member)
        return {
            name: f"verify{_of_others(name, found)} failed: see its output above"
            for name, found in failing.items()
        }


def _marks(host: Host, settings: Settings) -> Marks:
    """The drained servers of a gateway."""
    servers, directory = _pool(settings), NginxPaths().own
    paths = [mark_path(directory, name) for name in servers.names]
    found: dict[str, PathState] = host.get_fact(PathStates, paths=paths)
    return marks_of(servers, directory, NginxState(found))


def _state(settings: Settings, marks: Marks) -> PoolState:
    servers = _pool(settings)
    models = {name: step.answering for name, step in servers.models}
    return PoolState(frozenset(servers.names), frozenset(marks), models)


def _pool(settings: Settings) -> Pool:
    found = pool(settings)
    assert found, "a gateway has upstreams"
    return found


def _broken(plan: HostPlan) -> str:
    why = "; ".join(plan.errors)
    return f"{plan.host}: {plan.status}: {why}; the servers behind it cannot be drained"


def _of(state: State, names: Mapping[str, object]) -> set[Host]:
    return {host for host in state.inventory if host.name in names}


def _sentence(failed: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}: {' '.join(why)}" for name, why in failed.items())


def _by_gateway(hosts: Mapping[str, RollHost]) -> dict[str, list[str]]:
    """The names of these servers at their gateways."""
    found: dict[str, list[str]] = {}
    for host in hosts.values():
        for gateway, names in host.upstream.items():
            found.setdefault(gateway, []).extend(names)
    return found


def _members(hosts: Mapping[str, RollHost]) -> dict[str, str]:
    """All hosts of these, each with the name of its engine group's head, or its own."""
    return {member: name for name, host in hosts.items() for member in host.members}


def _of_others(name: str, failing: Sequence[str]) -> str:
    """Which members of an engine group have failed, unless it is the host that is named anyway."""
    return "" if list(failing) == [name] else f" of {' and '.join(failing)}"


def _missing(state: State, gateways: Mapping[str, object]) -> str:
    lost = sorted(gateways.keys() - {host.name for host in state.active_hosts})
    return f"{', '.join(lost)} could not be reached" if lost else ""


def _last_healthy(
    gateway: Host, settings: Settings, servers: Sequence[str], sick: Mapping[str, set[str]]
) -> str:
    """Why none of the gateway's other servers could answer instead of these, or nothing."""
    directory = NginxPaths().own
    drained = _marks(gateway, settings)
    if not {*servers} - {*drained}:
        return ""
    others = {
        each.name: (str(each.address), each.port)
        for each in settings.gateway.upstreams
        if each.name not in {*servers, *drained}
    }
    silent = gateway.get_fact(SilentUpstreams, servers=others, marks=directory) if others else []
    wanted = {*settings.gateway.upstream_services}
    why = {name: f"{name} accepts no connection" for name in silent}
    for name, services in sick.items():
        if name in others and (bad := sorted(services & wanted)):
            why.setdefault(name, f"{', '.join(bad)} on {name} is not healthy")
    healthy, leaving = others.keys() - why.keys(), {*servers} - {*drained}
    reasons = "; ".join(why.values()) or "all others are drained"
    if not healthy:
        return f"no other healthy server of {gateway.name} takes requests: {reasons}"
    for _, step in _pool(settings).models:
        places = step.answering
        if places & leaving and not places & healthy:
            return f"no other healthy server takes requests for the model {step.model}: {reasons}"
    return ""


def _show(plan: RollPlan) -> None:
    for number, batch in enumerate(plan.batches, start=1):
        names = escape(batch.shown)
        again = [host.shown for host in batch.hosts if host.rolled]
        more = f"; {escape(', '.join(again))} was left drained by an earlier roll" if again else ""
        _console.print(f"Batch {number}: [bold]{names}[/bold] ({batch.kind.value}{more})")
    if plan.done:
        _console.print(f"Nothing to do: {escape(', '.join(plan.done))}")
    for sentence in plan.left_out.values():
        _console.print(f"[yellow]{escape(sentence)}[/yellow]")
    for sentence in plan.failed.values():
        _error(sentence)


def _heading(text: str) -> None:
    _console.print(f"[bold]--> {escape(text)}[/bold]")


def _error(sentence: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"[red]error:[/red] {escape(sentence)}"
    )


def _report(rolling: _Roll, plan: RollPlan, remaining: Sequence[RollHost]) -> None:
    """What has failed, and what to do about it."""
    path = shlex.quote(rolling.inventory)
    for name, why in rolling.failed.items():
        _error(why if why.startswith(f"{name}") else f"{name}: {why}")
    waiting = [host.shown for host in remaining if host.name not in rolling.failed]
    if waiting:
        _console.print(f"Not changed, or not completely: {escape(', '.join(waiting))}")
    if rolling.failed or remaining:
        _console.print(f"To continue: llmhost roll {escape(path)}, with the same options")
    for name in rolling.failed:
        hosts = " ".join(plan.groups.get(name, (name,)))
        _console.print(
            f"To look at {escape(name)}: llmhost status {escape(path)} {escape(hosts)};"
            f" llmhost history {escape(path)} {escape(name)}\n"
            f"To roll it back: llmhost rollback {escape(path)} {escape(name)}"
        )
    for name, host in rolling.drained.items():
        if host.by_hand or host.trains:
            continue
        server = next(name for names in host.upstream.values() for name in names)
        undo = escape(f"llmhost drain {server} {path} --undo")
        _console.print(f"{escape(name)} is drained. To return it as it is: {undo}")
