"""The order and size of a roll's batches, what is left out, and how the next run continues."""

import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmhost.cli import roll
from llmhost.cli.app import app
from llmhost.cli.roll_plan import (
    BatchSize,
    Kind,
    PoolState,
    RollHost,
    RollPlan,
    batch_size,
    kind_of,
    pools_of,
    roll_plan,
)
from llmhost.inventory.site_reader import HostData, no_site_rules, read_site

ONE = BatchSize(1)


def server(number: int, status: str = "drift", **changes: Any) -> RollHost:
    name = f"llm-{number}"
    host = RollHost(name, Kind.BALANCED, status, upstream={"gate": (name,)})
    return replace(host, **changes)


def servers(count: int) -> list[RollHost]:
    return [server(number) for number in range(1, count + 1)]


def pool_of(hosts: Sequence[RollHost]) -> dict[str, PoolState]:
    """The gateway in front of these servers."""
    names = {name for host in hosts for name in host.upstream.get("gate", ())}
    drained = {name for host in hosts if host.is_drained for name in host.upstream["gate"]}
    return {"gate": PoolState(frozenset(names), frozenset(drained))}


def planned(hosts: Sequence[RollHost], size: BatchSize = ONE) -> RollPlan:
    return roll_plan(hosts, pool_of(hosts), size)


def batches(plan: RollPlan) -> list[list[str]]:
    return [batch.names for batch in plan.batches]


@pytest.mark.parametrize(
    ("text", "hosts", "size"),
    [("1", 20, 1), ("3", 20, 3), ("25%", 20, 5), ("10%", 5, 1), ("100%", 20, 20), ("50%", 5, 2)],
)
def test_batch_is_a_number_or_a_percentage(text: str, hosts: int, size: int) -> None:
    found = batch_size(text)
    assert found and found.of(hosts) == size


@pytest.mark.parametrize("text", ["0", "-1", "0%", "101%", "1.5", "half", "", "%", "2 %", "99999"])
def test_other_batches_are_refused(text: str) -> None:
    assert batch_size(text) is None


def test_refusal_of_a_batch_is_a_sentence() -> None:
    command = [str(Path(sys.executable).with_name("llmhost")), "roll", "nowhere.py", "--batch=0"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "error: --batch 0: is no number and no percentage of hosts; write 2 or 25%\n"
    )


def test_servers_follow_the_inventory_in_batches() -> None:
    assert batches(planned(servers(5), BatchSize(2))) == [
        ["llm-1", "llm-2"],
        ["llm-3", "llm-4"],
        ["llm-5"],
    ]


def test_a_pool_never_loses_all_its_servers() -> None:
    assert batches(planned(servers(3), BatchSize(100, percent=True))) == [
        ["llm-1", "llm-2"],
        ["llm-3"],
    ]


def test_converged_server_needs_nothing_and_counts_as_one_that_answers() -> None:
    hosts = [server(1, "converged"), server(2), server(3)]
    plan = planned(hosts, BatchSize(3))
    assert batches(plan) == [["llm-2", "llm-3"]] and plan.done == ("llm-1",)


def test_roll_continues_with_what_it_left_drained() -> None:
    hosts = [server(1, "converged"), server(2), server(3, rolled=True), server(4)]
    assert batches(planned(hosts)) == [["llm-3"], ["llm-2"], ["llm-4"]]


def test_drained_server_without_changes_is_still_verified_and_returned() -> None:
    plan = planned([server(1, "converged", rolled=True), server(2, "converged")])
    assert batches(plan) == [["llm-1"]] and plan.done == ("llm-2",)


def test_only_server_left_waits_until_the_drained_one_is_back() -> None:
    hosts = [server(1), server(2, rolled=True)]
    assert batches(planned(hosts, BatchSize(2))) == [["llm-2"], ["llm-1"]]


def test_server_drained_by_hand_is_left_out() -> None:
    plan = planned([server(1), server(2, by_hand=True), server(3)], BatchSize(3))
    assert batches(plan) == [["llm-1"], ["llm-3"]]
    assert "llm-2 (drift) was drained by hand" in plan.left_out["llm-2"]
    assert not plan.failed


def test_server_that_trains_is_left_out() -> None:
    plan = planned([server(1), server(2, trains=True), server(3)], BatchSize(3))
    assert batches(plan) == [["llm-1"], ["llm-3"]]
    assert "llm-2 (drift) trains an adapter and is left out" in plan.left_out["llm-2"]
    assert not plan.failed


def test_server_that_is_being_repaired_does_not_stop_the_others() -> None:
    plan = planned([server(1), server(2, "unreachable", by_hand=True), server(3)])
    assert batches(plan) == [["llm-1"], ["llm-3"]]
    assert "llm-2 (unreachable) was drained by hand" in plan.left_out["llm-2"]
    assert not plan.failed


def test_last_server_of_a_pool_is_never_drained() -> None:
    plan = planned([server(1), server(2, "converged", by_hand=True)])
    assert batches(plan) == []
    assert "llm-1 is the last server of gate that takes requests" in plan.failed["llm-1"]


def test_last_server_of_a_model_is_never_drained() -> None:
    hosts = servers(3)
    pool = PoolState(
        frozenset({"llm-1", "llm-2", "llm-3"}),
        frozenset(),
        {"brain": frozenset({"llm-1", "llm-2"}), "coder": frozenset({"llm-3"})},
    )
    plan = roll_plan(hosts, {"gate": pool}, BatchSize(3))
    assert batches(plan) == [["llm-1"], ["llm-2"]]
    assert "llm-3 is the last server of a model of gate" in plan.failed["llm-3"]


def test_server_of_two_gateways_counts_at_both() -> None:
    first = replace(server(1), upstream={"gate": ("llm-1",), "other": ("first",)})
    second = server(2)
    pools = {
        "gate": PoolState(frozenset({"llm-1", "llm-2"}), frozenset()),
        "other": PoolState(frozenset({"first"}), frozenset()),
    }
    plan = roll_plan([first, second], pools, ONE)
    assert batches(plan) == [["llm-2"]]
    assert "llm-1 is the last server of other" in plan.failed["llm-1"]


def test_gateway_behind_another_one_comes_before_its_servers() -> None:
    """It drains nothing as long as it differs from the inventory."""
    inner = {
        name: replace(server(0, name=name), upstream={"outer": (name,)}) for name in ("a", "b")
    }
    behind = [replace(server(number), upstream={"a": (f"llm-{number}",)}) for number in (1, 2)]
    pools = {
        "outer": PoolState(frozenset("ab"), frozenset()),
        "a": PoolState(frozenset({"llm-1", "llm-2"}), frozenset()),
    }
    hosts = [*behind, *inner.values()]
    assert batches(roll_plan(hosts, pools, BatchSize(4))) == [["a"], ["llm-1", "b"], ["llm-2"]]
    pools["outer"] = PoolState(frozenset("ab"), frozenset("b"))
    plan = roll_plan([*behind, inner["a"]], pools, ONE)
    assert not plan.batches and "a is the last server of outer" in plan.failed["a"]
    assert plan.failed["llm-1"] == "llm-1 is behind a, which cannot be changed first"


def test_gateways_come_first_and_alone_then_what_no_gateway_balances() -> None:
    hosts = [
        RollHost("app", Kind.APP_SERVER, "drift"),
        RollHost("single", Kind.ALONE, "drift"),
        server(1),
        server(2),
        RollHost("gate-1", Kind.GATEWAY, "drift"),
        RollHost("gate-2", Kind.GATEWAY, "drift"),
    ]
    plan = planned(hosts, BatchSize(50, percent=True))
    assert batches(plan) == [["gate-1"], ["gate-2"], ["llm-1"], ["llm-2"], ["single"], ["app"]]


@pytest.mark.parametrize("status", ["unreachable", "refused", "failed"])
def test_host_that_cannot_be_changed_is_named_first(status: str) -> None:
    plan = planned([server(1), server(2, status, errors=("no route",), rolled=True)])
    assert plan.failed["llm-2"] == f"llm-2: {status}: no route; it stays drained"


@dataclass
class Steps:
    """A roll whose steps are recorded instead of executed; `fails` are steps that fail, for a host,
    and `interrupted` is the step during which Ctrl-C is pressed."""

    plan: RollPlan
    fails: Collection[tuple[str, str]] = ()
    interrupted: tuple[str, str] = ("", "")
    seen: list[str] = field(default_factory=list)

    def step(self, name: str) -> Callable[[roll._Roll, Mapping[str, RollHost]], dict[str, str]]:
        def record(rolling: roll._Roll, hosts: Mapping[str, RollHost]) -> dict[str, str]:
            self.seen.append(f"{name} {' '.join(hosts)}")
            if name == "drain":
                rolling.drained.update(hosts)
            if self.interrupted[0] == name and self.interrupted[1] in hosts:
                raise KeyboardInterrupt
            return {host: f"{name} failed" for host in hosts if (name, host) in self.fails}

        return record

    def run(self, *options: str) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(roll, "_site", lambda *_: ({}, []))
            patch.setattr(roll, "failing_hosts", lambda *_: [])
            patch.setattr(roll._Roll, "plan", lambda *_: self.plan)
            for name in ("drain", "deploy", "verify", "return"):
                patch.setattr(roll._Roll, f"_{name}", self.step(name))
            return CliRunner().invoke(app, ["roll", "site.py", *options])


def test_each_batch_is_drained_deployed_verified_and_returned() -> None:
    hosts = [*servers(3), RollHost("single", Kind.ALONE, "drift")]
    steps = Steps(planned(hosts, BatchSize(2)))
    assert steps.run().exit_code == 0
    assert steps.seen == [
        *("drain llm-1 llm-2", "deploy llm-1 llm-2", "verify llm-1 llm-2", "return llm-1 llm-2"),
        *("drain llm-3", "deploy llm-3", "verify llm-3", "return llm-3"),
        *("deploy single", "verify single"),
    ]


@pytest.mark.parametrize("step", ["drain", "deploy", "verify", "return"])
def test_failed_server_stays_drained_and_ends_the_roll(step: str) -> None:
    steps = Steps(planned(servers(3)), {(step, "llm-2")})
    result = steps.run()
    assert result.exit_code == 1
    assert steps.seen[-1] == f"{step} llm-2"
    assert f"error: llm-2: {step} failed" in result.output
    assert "Not changed, or not completely: llm-3" in result.output
    assert "llmhost roll site.py" in result.output
    assert "llmhost rollback site.py llm-2" in result.output
    assert "llmhost drain llm-2 site.py --undo" in result.output


def test_others_of_a_failed_batch_are_returned() -> None:
    steps = Steps(planned(servers(3), BatchSize(2)), {("verify", "llm-1")})
    assert steps.run().exit_code == 1
    assert steps.seen[-1] == "return llm-2"


def test_roll_continues_as_long_as_few_enough_have_failed() -> None:
    steps = Steps(planned(servers(4)), {("deploy", "llm-1"), ("verify", "llm-2")})
    result = steps.run("--max-failed", "1")
    assert result.exit_code == 1
    assert steps.seen[-1] == "verify llm-2" and "llm-3, llm-4" in result.output
    steps = Steps(steps.plan, steps.fails)
    assert steps.run("--max-failed", "2").exit_code == 1
    assert steps.seen[-1] == "return llm-4"


def test_unreachable_host_prevents_the_roll_unless_it_is_allowed_to_fail() -> None:
    plan = planned([server(1), server(2, "unreachable", errors=("no route",)), server(3)])
    steps = Steps(plan)
    result = steps.run()
    assert result.exit_code == 1 and steps.seen == []
    assert "llm-2: unreachable: no route" in result.output
    assert "nothing was changed" in result.output
    assert steps.run("--max-failed", "1").exit_code == 1
    assert steps.seen[-1] == "return llm-3"


def test_interrupted_roll_names_what_is_drained() -> None:
    steps = Steps(planned(servers(3)), interrupted=("deploy", "llm-2"))
    result = steps.run()
    assert result.exit_code == 1 and steps.seen[-1] == "deploy llm-2"
    assert "Not changed, or not completely: llm-2, llm-3" in result.output
    assert "llmhost drain llm-2 site.py --undo" in result.output


def test_preview_runs_no_step() -> None:
    steps = Steps(planned(servers(2)))
    result = steps.run("--dry-run")
    assert result.exit_code == 2 and steps.seen == []
    assert "Batch 1: llm-1 (drained first)" in result.output
    assert Steps(planned([server(1, "converged")])).run("--dry-run").exit_code == 0


def test_server_left_out_shows_in_the_exit_status() -> None:
    result = Steps(planned([server(1), server(2), server(3, by_hand=True)])).run()
    assert result.exit_code == 2 and "llm-3 (drift) was drained by hand" in result.output


def test_host_is_found_in_a_pool_by_name_or_else_by_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "llmhost-" + "a" * 64)
    client = {"name": "app", "sha256": "1" * 64}
    gateway = {
        "gateway_upstreams": [
            {"name": "llm-1", "address": "10.0.0.1"},
            {"name": "second", "address": "10.0.0.2"},
            {"name": "elsewhere", "address": "10.0.0.9"},
        ],
        "gateway_upstream_services": ["redis"],
        "gateway_upstream_key": "env:GATEWAY_KEY",
        "gateway_upstream_tls": "off",
        "api_clients": [client],
    }
    own = {"services": ["redis"], "api_clients": [client]}
    declared = [
        HostData("gate", {**gateway, "ssh_hostname": "10.0.0.8"}, ["gateways"]),
        HostData("llm-1", {**own, "ssh_hostname": "bastion"}, ["llm_servers"]),
        HostData("llm-2", {**own, "ssh_hostname": "10.0.0.2"}, ["llm_servers"]),
        HostData("single", {**own, "ssh_hostname": "10.0.0.3"}, ["llm_servers"]),
    ]
    site = read_site(declared, site_rules=no_site_rules)
    pools = pools_of(site)
    assert pools == {"llm-1": {"gate": "llm-1"}, "llm-2": {"gate": "second"}}
    kinds = {name: kind_of(host, pools) for name, host in site.items()}
    assert kinds == {
        "gate": Kind.GATEWAY,
        "llm-1": Kind.BALANCED,
        "llm-2": Kind.BALANCED,
        "single": Kind.ALONE,
    }
