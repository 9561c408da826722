"""Findings of the preflight check."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from llmhost.preflight import Requirements, findings, occupied
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
