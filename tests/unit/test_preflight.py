"""Findings of the preflight check."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmhost.docker.containerd import EngineRoots
from llmhost.facts.docker import EngineRootsFact, OtherContainers
from llmhost.facts.network import HostNetworking, SilentPeers
from llmhost.facts.system import HostIdentityFact, HostTime
from llmhost.nvidia.gpu_allocation import GpuRequest
from llmhost.nvidia.state import Gpu, NvidiaState, PciDevice
from llmhost.operations import preflight
from llmhost.preflight import (
    Requirements,
    apart,
    findings,
    in_swarm,
    occupied,
    replaced_engine,
    unanswered,
    unlike_members,
)
from llmhost.system.addresses import NetworkState
from llmhost.system.host_identity import HostIdentity, parse_identity

LINES = """distribution=debian
version=13
codename=trixie
machine=x86_64
kernel=6.12.0-amd64
uid=0
user=root
init=systemd
boot_id=0b1f
virtualization=none
memory_kib=33554432
free_kib /var/lib/docker=104857600""".splitlines()
GOOD = parse_identity(LINES)


NEEDED = Requirements("distribution", min_memory_gib=4, min_free_disk_gib=20)
LISTENS = (IPv4Address("192.0.2.1"), IPv6Address("::"))


def told(
    identity: HostIdentity, skew_seconds: float = 0.5, needed: Requirements = NEEDED
) -> list[str]:
    return list(findings(identity, needed, skew_seconds=skew_seconds))


def test_good_host_has_no_findings() -> None:
    assert told(GOOD) == []


def test_identity_is_read_from_lines() -> None:
    assert GOOD.package_architecture == "amd64"
    assert GOOD.free_kib == {"/var/lib/docker": 104857600}
    assert not GOOD.is_wsl
    assert not GOOD.deployed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"distribution": "fedora", "version": "41"}, "the host runs fedora 41; reinstall it"),
        ({"version": "12"}, 'set docker_source = "docker"'),
        ({"version": "11"}, "the host runs debian 11"),
        ({"machine": "riscv64"}, "architecture is riscv64"),
        ({"uid": 1000, "user": "bob"}, "runs as bob, not as root"),
        ({"init": "docker-init"}, "process 1 is docker-init"),
        ({"init": "init", "kernel": "5.15.0-microsoft-standard-WSL2"}, "systemd=true"),
        ({"memory_kib": 1048576}, "has 1.0 GiB of memory and 4 GiB are required"),
        ({"free_kib": {"/var/lib/docker": 1048576}}, "has 1.0 GiB free, but images need 20 GiB"),
        ({"docker_of": "snap"}, "snap remove docker"),
        ({"docker_of": "podman"}, "apt-get remove podman-docker"),
    ],
)
def test_finding_names_what_is_wrong_and_the_fix(change: dict[str, object], sentence: str) -> None:
    sentences = told(replace(GOOD, **change))  # type: ignore[arg-type]
    assert len(sentences) == 1
    assert sentence in sentences[0]


@pytest.mark.parametrize(
    ("skew", "sentence"), [(3000.0, "3000 s ahead of the"), (-990.0, "990 s behind the")]
)
def test_clock_that_differs_from_the_controllers_is_a_finding(skew: float, sentence: str) -> None:
    assert [sentence in each for each in told(GOOD, skew)] == [True]


def test_all_findings_come_at_once() -> None:
    assert len(told(replace(GOOD, uid=1, version="9", memory_kib=1))) == 3


def test_deployed_host_may_be_nearly_full() -> None:
    full = replace(GOOD, deployed=True, free_kib={"/var/lib/docker": 2 * 1024 * 1024})
    assert told(full) == []


def test_ipv6_is_missed_only_by_a_gateway_that_listens_on_it() -> None:
    off = replace(GOOD, ipv6=False)
    (sentence,) = told(off, needed=replace(NEEDED, listens=LISTENS))
    assert "gateway_addresses has ::; set gateway_addresses = ['192.0.2.1']" in sentence
    assert told(off, needed=replace(NEEDED, listens=LISTENS[:1])) == []
    assert told(GOOD, needed=replace(NEEDED, listens=LISTENS)) == []


def test_tokens_are_not_counted_where_nginx_has_no_module_for_it() -> None:
    counting = replace(NEEDED, counts_tokens=True)
    old = replace(GOOD, distribution="ubuntu", version="22.04")
    (sentence,) = told(old, needed=counting)
    assert "gateway_count_tokens needs; remove this option" in sentence
    assert told(GOOD, needed=counting) == [] and told(old) == []


def test_host_without_docker_is_not_asked_for_it() -> None:
    assert told(replace(GOOD, version="12", docker_of="snap"), needed=Requirements()) == []


def test_other_sites_are_named() -> None:
    assert [*occupied([])] == []
    (sentence,) = occupied([f"/etc/nginx/conf.d/{each}.conf" for each in "abcd"])
    assert "conf.d/c.conf and 1 more)" in sentence and "gateway_replaces_nginx = True" in sentence


def test_node_of_a_swarm_is_refused_unless_the_daemon_starts_there() -> None:
    (sentence,) = in_swarm(live_restore=True)
    assert "docker swarm leave" in sentence and '{"live-restore": False}' in sentence
    assert [*in_swarm(live_restore=False)] == []


@pytest.mark.parametrize(
    ("source", "package", "other"),
    [("distribution", "docker-ce", "docker"), ("docker", "docker.io", "distribution")],
)
def test_engine_with_containers_of_others_is_not_replaced(
    source: str, package: str, other: str
) -> None:
    assert [*replaced_engine(source, [])] == []
    (sentence,) = replaced_engine(source, ["wiki", "db"])
    assert sentence.startswith(f"{package} has containers of others (wiki, db)")
    assert f'set docker_source = "{other}"' in sentence
    assert f"apt-get remove {package}" in sentence


def containers_of_others(place: Path, status: str, docker: str) -> list[str]:
    """What the fact finds on a host whose programs are these."""
    for name, text in (("dpkg-query", f"printf '{status}'"), ("docker", docker)):
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    fact = OtherContainers()
    command = ["sh", "-c", fact.command("docker-ce")]
    path = f"{place}:{os.environ['PATH']}"
    ran = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=True)
    return fact.process(ran.stdout.splitlines())


def test_containers_of_others_are_those_outside_llmhosts_project(tmp_path: Path) -> None:
    lists = "printf 'llmhost|llmhost-redis-1\\nwiki|wiki-db-1\\n|lonely\\n'"
    assert containers_of_others(tmp_path, "installed", lists) == ["wiki-db-1", "lonely"]
    assert containers_of_others(tmp_path, "installed", "true") == []
    assert containers_of_others(tmp_path, "config-files", lists) == []
    assert containers_of_others(tmp_path, "", lists) == []


@pytest.mark.parametrize(("deployed", "refusals"), [(False, 2), (True, 1)])
def test_host_that_is_deployed_may_change_the_source_of_its_engine(
    monkeypatch: pytest.MonkeyPatch, deployed: bool, refusals: int
) -> None:
    found: dict[object, object] = {
        HostIdentityFact: replace(GOOD, deployed=deployed),
        HostTime: time.time(),
        EngineRootsFact: EngineRoots(swarm=True),
        OtherContainers: ["wiki"],
    }
    monkeypatch.setattr(preflight, "get_fact", lambda fact, **_: found[fact])
    monkeypatch.setattr(preflight, "refuse", list)
    body = preflight.fit._inner  # type: ignore[attr-defined]
    needed = replace(NEEDED, live_restore=True)
    (refused,) = body(needed, paths=[], receipt="/r", roots=("/var/lib/docker", ""))
    assert len(refused) == refusals


def gpu(index: int, product: str = "H100", gib: int = 80, driver: str = "580.95.05") -> Gpu:
    return Gpu(
        index, f"GPU-{index}", f"0{index}:00.0", driver, True, None, False, product, gib << 30
    )


def hardware(*gpus: Gpu, ids: Sequence[int] = ()) -> NvidiaState:
    bus = tuple(PciDevice(f"0{n}:00.0", 0x030200, each) for n, each in enumerate(ids))
    return NvidiaState("13", "x86_64", "systemd", "6.12.0", pci=bus, gpus=gpus)


EQUAL = hardware(gpu(0), gpu(1))


@pytest.mark.parametrize(
    ("other", "request_", "expected"),
    [
        (EQUAL, 2, ""),
        (hardware(gpu(1), gpu(0)), 2, ""),
        (
            hardware(gpu(0), gpu(1, "A100")),
            2,
            "2 × H100 (80.0 GiB) here and 1 × A100 (80.0 GiB) and 1 × H100 (80.0 GiB) on two",
        ),
        (hardware(gpu(0), gpu(1, gib=96)), ("0", "1"), "and 1 × H100 (96.0 GiB) on two"),
        # The one that differs is not the engine's, or nobody knows whether it is.
        (hardware(gpu(0), gpu(1), gpu(2, "A100")), ("0", "1"), ""),
        (hardware(gpu(0), gpu(1), gpu(2, "A100")), 2, ""),
        (hardware(gpu(0, driver="570.86"), gpu(1, driver="570.86")), 2, "the driver is 580.95.05"),
        (hardware(gpu(0, driver="580.65"), gpu(1, driver="580.65")), 2, ""),
        (hardware(), 2, ""),
    ],
)
def test_members_of_a_group_have_equal_gpus_and_drivers(
    other: NvidiaState, request_: int | tuple[str, ...], expected: str
) -> None:
    found = [*unlike_members("two", EQUAL, other, GpuRequest(request_), driver=True)]
    assert len(found) == bool(expected) and all(expected in each for each in found), found


def test_gpus_without_a_driver_are_compared_by_their_ids() -> None:
    mine, request = hardware(ids=[0x2330, 0x2330]), GpuRequest(2)
    (found,) = unlike_members("two", mine, hardware(ids=[0x2330, 0x20B2]), request, driver=True)
    assert "PCI id 10de:20b2" in found and "on two" in found
    same = hardware(gpu(0), gpu(1), ids=[0x2330, 0x2330])
    assert [*unlike_members("two", mine, same, request, driver=True)] == []


def test_drivers_that_llmhost_installs_are_not_compared() -> None:
    """A deploy that was killed between two members must be repeatable."""
    other = hardware(gpu(0, driver="570.86"), gpu(1, driver="570.86"))
    assert [*unlike_members("two", EQUAL, other, GpuRequest(2), driver=False)] == []


# `ip` as it answers with the real routes and neighbors of two network namespaces (iproute2 6.15).
_IP = """#!/bin/sh
case "$*" in
  *"route get 10.9.0.2") echo "10.9.0.2 dev eth1 src 10.9.0.1 uid 0 \\\\    cache " ;;
  *"route get 10.9.0.3") echo "10.9.0.3 dev eth1 src 10.9.0.1 uid 0 \\\\    cache " ;;
  *"route get 10.9.0.4") echo "10.9.0.4 via 192.0.2.1 dev eth0 src 192.0.2.7 uid 0" ;;
  *"route get 10.7.0.5") echo "10.7.0.5 via 10.9.0.254 dev eth1 src 10.9.0.1 uid 0" ;;
  *"route get"*) echo "RTNETLINK answers: Network is unreachable" >&2; exit 2 ;;
  *"to 10.9.0.2 dev eth1") echo "10.9.0.2 lladdr be:f1:8f:c8:19:3e REACHABLE " ;;
  *"to 10.9.0.254 dev eth1") echo "10.9.0.254 lladdr be:f1:8f:c8:19:3f STALE " ;;
  *"to 10.9.0.3 dev eth1") echo "10.9.0.3 FAILED " ;;
  *) exit 1 ;;
esac
"""


def test_members_that_do_not_answer_are_named(tmp_path: Path) -> None:
    program = tmp_path / "ip"
    program.write_text(_IP)
    program.chmod(0o755)
    peers = {
        "two": "10.9.0.2",
        "off": "10.9.0.3",
        "elsewhere": "10.9.0.4",
        "far": "10.7.0.5",
        "nowhere": "172.16.0.1",
    }
    command = SilentPeers().command(interface="eth1", peers=peers)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(command, shell=True, env=env, capture_output=True, text=True)
    silent = SilentPeers().process(ran.stdout.splitlines())
    assert silent == {"off": "silent", "elsewhere": "via eth0", "nowhere": "unrouted"}
    sentences = [*unanswered("eth1", peers, silent)]
    assert [each.partition(" (")[0] for each in sentences] == ["elsewhere", "nowhere", "off"]
    assert (
        "(10.9.0.4), a member of the engine group, is reached by eth0, not by eth1" in sentences[0]
    )
    assert "is in no network of this host" in sentences[1]
    assert "does not answer on eth1; switch it on" in sentences[2]


def test_run_without_all_members_says_so() -> None:
    (found,) = apart(["two", "three"], "one")
    assert "two, three of its engine group is not in this run" in found
    assert found.endswith("use --limit one --limit three --limit two") and not [*apart([], "one")]


@pytest.mark.parametrize(("deployed", "refusals"), [(False, 3), (True, 1)])
def test_member_that_is_deployed_may_change_beside_one_that_is_unfit(
    monkeypatch: pytest.MonkeyPatch, deployed: bool, refusals: int
) -> None:
    """Its own interface is needed; what is wrong with others is a warning then."""
    found: dict[object, object] = {
        HostIdentityFact: replace(GOOD, deployed=deployed),
        HostTime: time.time(),
        HostNetworking: NetworkState(macs={"eth0": ""}),
        SilentPeers: {"three": "silent"},
    }
    members = [SimpleNamespace(name=name) for name in ("one", "two")]
    inventory = SimpleNamespace(get_host=lambda name: name)
    state = SimpleNamespace(active_hosts=members, inventory=inventory, is_executing=False)
    notes: list[str] = []
    monkeypatch.setattr(preflight, "host", SimpleNamespace(name="one", state=state))
    monkeypatch.setattr(preflight, "get_fact", lambda fact, **_: found[fact])
    monkeypatch.setattr(preflight, "read_state", lambda **_: EQUAL)
    others = {"two": hardware(gpu(0), gpu(1, "A100"))}
    monkeypatch.setattr(preflight, "_state_of", others.__getitem__)
    monkeypatch.setattr(preflight, "refuse", list)
    monkeypatch.setattr(preflight, "note", notes.extend)
    group = preflight.GroupPlan(
        "eth1", IPv4Address("10.9.0.1"), {"three": "10.9.0.3"}, ("two", "three"), GpuRequest(2)
    )
    body = preflight.fit._inner  # type: ignore[attr-defined]
    (refused,) = body(replace(NEEDED, docker_source=""), paths=[], receipt="/r", group=group)
    assert len(refused) == refusals and "no interface eth1" in refused[0]
    found[HostNetworking] = NetworkState(has_ip=False)  # nothing is known then
    left = [*body(replace(NEEDED, docker_source=""), paths=[], receipt="/r", group=group)]
    assert len(left) == (not deployed)
    assert not deployed or (len(notes) == 3 and "three of its engine group is not in" in notes[-1])
