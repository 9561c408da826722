"""Findings of the preflight check."""

import os
import subprocess
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from llmhost.docker.containerd import EngineRoots
from llmhost.facts.docker import EngineRootsFact, OtherContainers
from llmhost.facts.system import HostIdentityFact, HostTime
from llmhost.operations import preflight
from llmhost.preflight import Requirements, findings, in_swarm, occupied, replaced_engine
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
