"""Commands that treat an engine group as one: `roll`, `drain` and `history`.

What reaches hosts is a double here: the deploy, `verify`, the drain at the gateway, and the answers
of hosts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import Inventory
from typer.testing import CliRunner

from llmhost.cli import drain, roll, session
from llmhost.cli import history as cli_history
from llmhost.cli.app import app
from llmhost.cli.parallel import Answer
from llmhost.cli.roll_plan import (
    BatchSize,
    Kind,
    PoolState,
    RollHost,
    RollPlan,
    groups_as_one,
    pools_of,
    roll_plan,
)
from llmhost.docs.schemas import SCHEMAS, schema
from llmhost.gateway.keys import digest
from llmhost.history.run_record import Run, run_on
from llmhost.operations import lock
from llmhost.operations.run_state import run_of

ONE = BatchSize(1)
MEMBERS = ("one", "six", "two")
"""The head first, as `EngineGroup.names` has them."""


def member(name: str, status: str = "drift", **changes: Any) -> RollHost:
    """A member as `roll` finds it: the gateway has the head alone."""
    head = name == MEMBERS[0]
    host = RollHost(
        name,
        Kind.BALANCED if head else Kind.ALONE,
        status,
        upstream={"gate": ("one",)} if head else {},
        group=MEMBERS,
    )
    return replace(host, **changes)


def server(name: str, status: str = "drift", **changes: Any) -> RollHost:
    return replace(RollHost(name, Kind.BALANCED, status, upstream={"gate": (name,)}), **changes)


def group(**statuses: str) -> list[RollHost]:
    """The members, in drift unless another status is given."""
    return [member(name, statuses.get(name, "drift")) for name in ("two", "one", "six")]


def planned(hosts: Sequence[RollHost], size: BatchSize = ONE) -> RollPlan:
    found = groups_as_one(hosts)
    names = frozenset(name for host in found for name in host.upstream.get("gate", ()))
    drained = frozenset(
        name for host in found if host.is_drained for name in host.upstream.get("gate", ())
    )
    return roll_plan(found, {"gate": PoolState(names, drained)}, size)


def batches(plan: RollPlan) -> list[list[str]]:
    return [batch.names for batch in plan.batches]


def test_group_is_one_server_of_its_pool() -> None:
    plan = planned([*group(), server("alone")])
    assert batches(plan) == [["one"], ["alone"]]
    assert plan.batches[0].hosts[0].members == MEMBERS
    assert plan.batches[0].shown == "one with six and two"
    assert (plan.left_out, plan.failed) == ({}, {})


def test_percentage_of_a_batch_is_one_of_servers_not_of_members() -> None:
    others = [server(f"llm-{number}") for number in (1, 2, 3)]
    plan = planned([*group(), *others], BatchSize(50, percent=True))
    assert batches(plan) == [["one", "llm-1"], ["llm-2", "llm-3"]]


def test_change_of_one_member_drains_the_group() -> None:
    hosts = [*group(one="converged", six="converged"), server("alone", "converged")]
    assert batches(planned(hosts)) == [["one"]]
    plan = planned([*group(one="converged", six="converged", two="converged"), hosts[-1]])
    assert batches(plan) == [] and plan.done == ("one with six and two", "alone")


def test_group_with_a_lost_member_is_not_changed() -> None:
    lost = member("two", "unreachable", errors=("no route",))
    plan = planned([lost, member("one"), member("six", "converged"), server("alone")])
    assert batches(plan) == [["alone"]]
    assert plan.failed == {"one": "one with six and two: unreachable: two: no route"}


def test_only_group_of_a_pool_is_never_drained() -> None:
    plan = planned(group())
    assert batches(plan) == []
    limits = "--limit one --limit six --limit two"
    assert plan.failed["one"] == (
        "one with six and two is the last server of gate that takes requests, and cannot be"
        f" drained: add another one first, or run llmhost deploy with {limits}, which interrupts"
        " its requests"
    )


def test_group_that_an_operator_drained_is_left_out() -> None:
    hosts = [member("two"), member("one", by_hand=True), member("six"), server("alone")]
    plan = planned([*hosts, server("llm-2")])
    assert batches(plan) == [["alone"], ["llm-2"]]
    assert "one with six and two (drift) was drained by hand" in plan.left_out["one"]


def test_roll_continues_with_the_group_that_it_left_drained() -> None:
    """Its deploy was complete, and the check of a member failed."""
    head = member("one", "converged", rolled=True)
    hosts = [server("alone"), head, member("six", "converged"), member("two", "converged")]
    assert batches(planned(hosts)) == [["one"], ["alone"]]


def test_group_that_no_gateway_balances_is_changed_as_one() -> None:
    hosts = [replace(each, kind=Kind.ALONE, upstream={}) for each in group()]
    plan = planned([RollHost("single", Kind.ALONE, "drift"), *hosts])
    assert batches(plan) == [["single"], ["one"]]
    assert [each.kind for each in plan.batches] == [Kind.ALONE, Kind.ALONE]


def test_worker_that_answers_with_another_service_counts_for_its_group() -> None:
    hosts = [member("one"), member("two", kind=Kind.BALANCED, upstream={"gate": ("two",)})]
    both = [*hosts, member("six")]
    assert "one" in planned(both).failed
    plan = planned([*both, server("alone")])
    assert batches(plan) == [["one"], ["alone"]]
    assert plan.batches[0].hosts[0].upstream == {"gate": ("one", "two")}


@dataclass
class Steps:
    """A roll whose drain, deploy and verify are doubles that record their hosts; `sick` are hosts
    that `verify` finds wrong, `broken` those whose deploy fails."""

    plan: RollPlan
    sick: Sequence[str] = ()
    broken: Sequence[str] = ()
    seen: list[str] = field(default_factory=list)

    def run(self, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
        def drained(rolling: roll._Roll, hosts: Mapping[str, RollHost]) -> dict[str, str]:
            rolling.drained.update(hosts)
            self.seen.append(f"drain {' '.join(hosts)}")
            return {}

        def returned(rolling: roll._Roll, hosts: Mapping[str, RollHost]) -> dict[str, str]:
            for name in hosts:
                rolling.drained.pop(name)
            self.seen.append(f"return {' '.join(hosts)}")
            return {}

        monkeypatch.setattr(roll, "_site", lambda *_: ({}, []))
        monkeypatch.setattr(roll._Roll, "plan", lambda *_: self.plan)
        monkeypatch.setattr(roll._Roll, "_check_gateways", lambda *_: None)
        monkeypatch.setattr(roll._Roll, "_drain", drained)
        monkeypatch.setattr(roll._Roll, "_return", returned)
        monkeypatch.setattr(roll, "run_pyinfra", self.deploy)
        monkeypatch.setattr(roll, "failing_hosts", self.verify)
        return CliRunner().invoke(app, ["roll", "site.py", *options])

    def deploy(self, *arguments: object) -> int:
        names = [str(each).partition("--limit=")[2] for each in arguments[3:]]
        self.seen.append(f"deploy {' '.join(names)}")
        return int(any(name in self.broken for name in names))

    def verify(self, _: str, names: Sequence[str]) -> list[str]:
        self.seen.append(f"verify {' '.join(names)}")
        return [name for name in names if name in self.sick]


def test_all_members_are_deployed_and_verified_together(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(planned([*group(), server("alone")]))
    result = steps.run(monkeypatch)
    assert result.exit_code == 0, result.output
    assert steps.seen == [
        *("drain one", "deploy one six two", "verify one six two", "return one"),
        *("drain alone", "deploy alone", "verify alone", "return alone"),
    ]
    assert "Batch 1 of 2: one with six and two" in result.output
    assert "one with six and two: done" in result.output


def test_one_wrong_member_leaves_its_group_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(planned([*group(), server("alone")]), sick=["two"])
    result = steps.run(monkeypatch)
    assert result.exit_code == 1 and steps.seen[-1] == "verify one six two"
    assert "error: one: verify of two failed: see its output above" in result.output
    assert "Not changed, or not completely: alone" in result.output
    assert "To look at one: llmhost status site.py one six two; llmhost history" in result.output
    assert "llmhost rollback site.py one" in result.output
    assert "one is drained. To return it as it is: llmhost drain one site.py --undo" in (
        result.output
    )


def test_failed_group_is_one_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(planned([*group(), server("alone")]), sick=["one", "six", "two"])
    result = steps.run(monkeypatch, "--max-failed", "1")
    assert result.exit_code == 1 and steps.seen[-1] == "return alone"
    assert "error: one: verify of one and six and two failed" in result.output


def test_failed_deploy_of_a_batch_fails_groups_that_are_not_as_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = [*group(), server("alone"), server("llm-2", "converged")]
    steps = Steps(planned(hosts, BatchSize(2)), broken=["two"])

    @contextmanager
    def compared(*_: object) -> Iterator[tuple[Any, None]]:
        names = ("one", "six", "two", "alone")
        yield SimpleNamespace(inventory=[HostOf(name) for name in names]), None

    def plan_of(_: object, host: "HostOf", __: object) -> Any:
        return SimpleNamespace(
            host=host.name, status="drift" if host.name == "two" else "converged"
        )

    monkeypatch.setattr(roll, "dry_run", compared)
    monkeypatch.setattr(roll, "host_plan", plan_of)
    result = steps.run(monkeypatch)
    assert result.exit_code == 1
    assert steps.seen[-3:] == ["deploy one six two alone", "verify alone", "return alone"]
    assert "error: one: the deploy failed: see its output above" in result.output


@dataclass(frozen=True)
class HostOf:
    """As much of pyinfra's host as counts."""

    name: str


MODEL: dict[str, Any] = {
    "name": "brain",
    "service": "vllm",
    "source": "hf:example/brain",
    "revision": "ab" * 20,
    "files": [{"path": "model.safetensors", "sha256": "1" * 64}],
    "vram_gib": 1,
}
KEY = "llmhost-" + "5" * 64
SERVER: dict[str, Any] = {
    "services": ["vllm"],
    "models": [MODEL],
    "vllm_gpu": [0],
    "gateway_tls": "off",
    "api_clients": [{"name": "gate", "sha256": digest(KEY)}],
}
GROUP: dict[str, Any] = {
    "engine_group_members": {"one": "10.9.0.1", "two": "10.9.0.2", "six": "10.9.0.6"},
    "engine_group_head": "one",
    "engine_group_interface": "eth1",
    "engine_group_token": "env:LLMHOST_TEST_GROUP",
}
GATEWAY: dict[str, Any] = {
    "gateway_upstreams": [
        {"name": "one", "address": "10.0.0.1"},
        {"name": "alone", "address": "10.0.0.4"},
    ],
    "gateway_upstream_services": ["vllm"],
    "gateway_upstream_key": "env:LLMHOST_TEST_KEY",
    "gateway_upstream_tls": "off",
    "gateway_tls": "off",
    "api_clients": [{"name": "app", "sha256": "cd" * 32}],
}


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """A group, another server, and the gateway in front of both: data by host, which a test may
    change. What reads an inventory file is a double: it would patch the threads of this process."""
    monkeypatch.setenv("LLMHOST_TEST_GROUP", "g" * 32)
    monkeypatch.setenv("LLMHOST_TEST_KEY", KEY)
    hosts: dict[str, dict[str, Any]] = {
        name: {**SERVER, **(GROUP if name in MEMBERS else {}), "ssh_hostname": f"10.0.0.{number}"}
        for number, name in enumerate(("one", "two", "six", "alone"), start=1)
    }
    hosts["gate"] = dict(GATEWAY)

    def load(_: str) -> Inventory:
        groups: dict[str, Any] = {"big": (["one", "two", "six"], {}), "gateways": (["gate"], {})}
        return Inventory(([*hosts.items()], {}), **groups)  # type: ignore[no-untyped-call]

    for module in (roll, drain, session):
        monkeypatch.setattr(module, "load_inventory", load)
    return hosts


def test_limit_to_a_member_is_one_to_its_group(
    declared: object, capsys: pytest.CaptureFixture[str]
) -> None:
    del declared
    site, names = roll._site("site.py", ["two"])
    assert names == ["one", "two", "six"] and {"gate", *names} <= site.keys()
    said = capsys.readouterr().out
    assert "one is included, because it is in one engine group with two" in said
    assert "six is included, because it is in one engine group with two" in said
    assert roll._site("site.py", ["alone"])[1] == ["alone"]
    roll._site("site.py", ["big"])
    assert capsys.readouterr().out == ""


def test_drain_waits_for_the_head_and_asks_no_member_for_its_health(
    declared: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    del declared
    site, _ = roll._site("site.py", [])
    rolling = roll._Roll("site.py", site, pools_of(site), 5, interrupt=False)
    (one,) = groups_as_one(group())
    asked: list[object] = []

    @contextmanager
    def connected(_: str, names: Iterable[str], *, strict: bool) -> Iterator[tuple[Any, None]]:
        assert not strict  # mistakes of the others do not matter
        asked.append(sorted(names))
        gate = HostOf("gate")
        yield SimpleNamespace(active_hosts={gate}, inventory=[gate]), None

    def await_end(_: object, __: object, servers: Mapping[str, object], ___: int) -> dict[str, int]:
        asked.append(servers)
        return dict.fromkeys(servers, 3)

    monkeypatch.setattr(roll, "connected", connected)
    monkeypatch.setattr(roll, "_last_healthy", lambda *_: "")
    monkeypatch.setattr(roll._Roll, "_sick", lambda _, __, others: asked.append(others))
    monkeypatch.setattr(roll._Roll, "_at_gateways", lambda *_, **__: {})
    monkeypatch.setattr(roll, "await_end", await_end)
    failed = rolling._drain({"one": one})
    assert asked == [["alone", "gate"], {"alone"}, {"one": {"gate": "one"}}]
    assert list(failed) == ["one"] and "3 connections were still open" in failed["one"]


@dataclass
class Drain:
    """A double of the connection to the gateway, which records what it is asked to drain."""

    servers: list[tuple[str, ...]] = field(default_factory=list)

    @contextmanager
    def connected(self, _: str, names: Sequence[str]) -> Iterator[tuple[Any, None]]:
        yield SimpleNamespace(active_hosts={HostOf(name) for name in names}), None

    def run_locked(self, _: object, calls: Mapping[HostOf, Any]) -> dict[str, list[str]]:
        self.servers += [call.arguments[0] for call in calls.values()]
        return {}

    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
        monkeypatch.setattr(drain, "connected", self.connected)
        monkeypatch.setattr(drain, "run_locked", self.run_locked)
        monkeypatch.setattr(drain, "await_end", lambda _, __, names, ___: dict.fromkeys(names, 0))
        return CliRunner().invoke(app, ["drain", *arguments])


@pytest.mark.parametrize("name", MEMBERS)
def test_drain_of_any_member_is_that_of_the_head(
    name: str, declared: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    del declared
    found = Drain()
    result = found.run(monkeypatch, name, "site.py")
    assert result.exit_code == 0 and found.servers == [("one",)], result.output
    assert ("is in the engine group of one" in result.output) == (name != "one")


@pytest.mark.parametrize("name", MEMBERS)
def test_drain_includes_a_worker_that_answers_with_another_service(
    name: str, declared: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = [{"name": name, "address": declared[name]["ssh_hostname"]} for name in ("one", "two")]
    declared["gate"] |= {"gateway_upstreams": servers, "gateway_upstream_services": ["docling"]}
    for name in ("one", "two"):
        declared[name] |= {"services": ["docling", "vllm"]}
    found = Drain()
    result = found.run(monkeypatch, name, "site.py", "--undo")
    assert result.exit_code == 0 and found.servers == [("one", "two")], result.output


@pytest.mark.parametrize("asked", ["front", "One", "two"])
def test_drain_knows_members_by_other_names(
    asked: str, declared: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the gateway, which has no capitals, or calls a server as it likes."""
    members = {"One": "10.9.0.1", "two": "10.9.0.2", "six": "10.9.0.6"}
    declared["One"] = declared.pop("one")
    for name in members:
        declared[name] |= {"engine_group_members": members, "engine_group_head": "One"}
        declared[name] |= {"services": ["docling", "vllm"]}
    declared["gate"] |= {
        "gateway_upstreams": [
            {"name": "one", "address": "10.0.0.1"},
            {"name": "front", "address": "10.0.0.2", "port": 8080},
        ],
        "gateway_upstream_services": ["docling"],
    }
    found = Drain()
    result = found.run(monkeypatch, asked, "site.py")
    assert result.exit_code == 0 and found.servers == [("one", "front")], result.output
    assert ("is in the engine group of One" in result.output) == (asked != "One")


def run(number: int, host: str = "", *changed: str, **more: Any) -> Run:
    """A run of this number; without a host, one of an older release."""
    begun = f"2026-01-0{number}T00:00:00Z"
    identity = run_on(f"{number:x}f", host) if host else f"{number:x}f{more.pop('of', '')}"
    made = Run(identity, "ann@desk", begun, "0.2", "0123456789abcdef", False, 4711)
    return replace(made.ended("done"), changed=changed, **more)


@dataclass
class Histories:
    """A double of hosts that answer with these runs."""

    answers: Mapping[str, Sequence[Run] | str]

    @contextmanager
    def connected(self, _: str, names: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        def about(name: str) -> list[str]:
            return [f"no SSH connection to {name}"]

        active = {HostOf(name) for name in names if name in self.answers}
        yield SimpleNamespace(active_hosts=active), SimpleNamespace(about=about)

    def run_on_each(self, asked: Mapping[HostOf, str], _: float) -> dict[str, Answer]:
        found = {host.name: self.answers[host.name] for host in asked}
        return {
            name: Answer(error=runs)
            if isinstance(runs, str)
            else Answer("\n".join(each.line for each in runs))
            for name, runs in found.items()
        }

    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
        monkeypatch.setattr(cli_history, "connected", self.connected)
        monkeypatch.setattr(cli_history, "run_on_each", self.run_on_each)
        monkeypatch.setattr(cli_history, "_question", lambda _: "")
        monkeypatch.setenv("COLUMNS", "200")
        return CliRunner().invoke(app, ["history", "site.py", *arguments])


RUNS: dict[str, Sequence[Run] | str] = {
    "one": [run(1, "one", "Docker", "Stack"), run(2, "one", "Gateway"), run(3, "one", "Stack")],
    "two": [
        run(1, "two", "Docker", "Stack"),
        run(3, "two", "Stack", result="failed", failed="Start"),
    ],
    "six": [],
}


def rows(output: str) -> list[list[str]]:
    """The cells of a table, without its borders and its head."""
    lines = [line for line in output.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


@pytest.mark.parametrize("host", MEMBERS)
def test_run_of_several_members_is_one_entry(
    host: str, declared: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Histories(RUNS).run(monkeypatch, host)
    assert result.exit_code == 0, result.output
    assert "Engine group one, six, two" in result.output
    by, revision = "ann@desk", "01234567"
    assert rows(result.output) == [
        ["2026-01-01T00:00:00Z", by, revision, "one", "done", "Docker"],
        ["", "", "", "two", "", "Stack"],
        ["2026-01-02T00:00:00Z", by, revision, "one", "done", "Gateway"],
        ["2026-01-03T00:00:00Z", by, revision, "one", "done (one)", "Stack"],
        ["", "", "", "two", "failed: Start (two)", ""],
    ]
    assert "six: no run above changed it together with another member" in result.output
    assert "two: no run above" not in result.output and "one: no run" not in result.output


def test_json_of_a_member_has_its_own_runs_and_those_of_the_group(
    declared: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jsonschema_rs

    result = Histories(RUNS).run(monkeypatch, "two", "--json", "--last", "2")
    printed = json.loads(result.output)
    jsonschema_rs.validator_for(schema(SCHEMAS["history"])).validate(printed)
    own = [json.loads(json.dumps(asdict(each))) for each in RUNS["two"] if isinstance(each, Run)]
    assert (printed["schema"], printed["runs"]) == (1, own)
    assert [[*each["members"]] for each in printed["group"]] == [["one"], ["one", "two"]]
    assert printed["group"][1]["members"]["two"] == own[1]
    assert (printed["apart"], printed["unread"]) == (["six"], {})


def test_members_that_cannot_be_read_are_named(
    declared: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = {"one": RUNS["one"], "two": "sudo: a password is required"}
    result = Histories(lost).run(monkeypatch, "one")
    assert result.exit_code == 0 and "Gateway" in result.stdout
    assert "error: two: its history could not be read: sudo: a password" in result.stderr
    assert "error: six: its history could not be read: no SSH connection" in result.stderr
    assert "no run above" not in result.stdout
    result = Histories(lost).run(monkeypatch, "six")
    assert result.exit_code == 1 and "six: no SSH connection to six" in result.stderr


def test_members_of_older_runs_are_not_said_to_be_apart(
    declared: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their hosts have identities of their own, so that none of them can be recognized."""
    older = {name: [run(1, "", "Stack", of=name)] for name in MEMBERS}
    result = Histories(older).run(monkeypatch, "one")
    assert [cells[3] for cells in rows(result.output)] == ["one", "six", "two"]
    assert "no run above" not in result.output


def test_history_of_another_host_is_its_own(
    declared: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Histories({"alone": [run(1, "alone", "Stack")]}).run(monkeypatch, "alone")
    assert "members" not in result.output and rows(result.output)[0][-2:] == ["done", "Stack"]
    result = Histories({"alone": []}).run(monkeypatch, "alone")
    assert result.output == "alone: no deploy has changed this host yet\n"
    result = Histories({}).run(monkeypatch, "big")
    assert result.exit_code == 1
    assert "big matches 3 hosts; give one of one, six, two" in result.stderr


def test_hosts_of_a_run_record_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Run] = []

    def start(host: Any, _: str, __: object, record: Run) -> tuple[Any, str]:
        lines.append(record)
        return SimpleNamespace(send=lambda _: None), ""

    monkeypatch.setattr(lock, "_start", start)
    monkeypatch.setattr(lock, "connection_arguments", lambda _: {})
    monkeypatch.setattr(lock, "add_callbacks", lambda *_: None)
    state: Any = SimpleNamespace()
    for name in ("one", "two"):
        host: Any = SimpleNamespace(name=name, state=state)
        assert lock._acquire(host, "/var/lib/llmhost") == []
    assert [each.run for each in lines] == [run_on(run_of(state).id, n) for n in ("one", "two")]
