"""Containers connect only to what is declared: from inside, while a neighbor listens."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llmhost.checks.catalogue import HERE
from llmhost.verify.report import Check, parse
from testbed import Lan, Machine
from testbed.engine import root_archive
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.egress_site import (
    NameServer,
    connects,
    inside,
    limited_stack,
    look_up,
    name_server,
)
from tests.integration.file_server import file_server
from tests.integration.harness import deploy

pytestmark = pytest.mark.machines

TABLE = "inet llmhost_egress"
LIMIT = "Egress | Reject connections of containers that are not declared"
NO_SUCH_NAME, SERVER_FAILURE = 3, 2
ENGINES = [
    pytest.param("26.1", id="Docker 26.1"),
    pytest.param("28.5", id="Docker 28.5", marks=pytest.mark.flavours),
]


class Site:
    """The stack, and a neighbor: a web server and the name server of the machine."""

    def __init__(self, docker: DockerSite, names: NameServer, neighbor: tuple[str, int]) -> None:
        self.docker, self.machine = docker, docker.machine
        self.names, self.neighbor = names, neighbor

    def deploy(self, egress: str, *allow: dict[str, Any]) -> None:
        settings = self.docker.settings(stack_egress=egress, stack_egress_allow=allow)
        outcome = deploy(self.machine, limited_stack, settings)
        assert outcome.succeeded, outcome.output

    def refused(self) -> bool:
        """Whether a container reaches neither the neighbor nor the machine's own addresses."""
        own = [self.machine.address, "172.17.0.1", _bridge_address(self.machine)]
        targets = [self.neighbor, *((address, 22) for address in own)]
        reached = {target for target in targets if connects(self.machine, *target)}
        assert reached in (set(), set(targets))
        return not reached


def _bridge_address(machine: Machine) -> str:
    shown = "{{(index .IPAM.Config 0).Gateway}}"
    return machine.ssh(f"docker network inspect -f '{shown}' llmhost_default").stdout.strip()


@pytest.fixture(scope="module", params=ENGINES)
def site(
    request: pytest.FixtureRequest,
    lan: Lan,
    machine: Machine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    with ExitStack() as stack:
        host = machine
        if request.param == "28.5":
            host = lan.machine("docker28-egress", suite="forky")
            # llmhost knows released Debian only.
            release = "ID=debian\nVERSION_ID=13\nVERSION_CODENAME=trixie\n"
            host.ssh("cat >/usr/lib/os-release", input=release)
        directory = tmp_path_factory.mktemp("site")
        docker = stack.enter_context(docker_site(lan, host, directory))
        version = host.ssh("docker version -f '{{.Server.Version}}'").stdout
        assert version.startswith(request.param)
        names = stack.enter_context(name_server(lan.gateway))
        web = stack.enter_context(file_server(lan.gateway, b"hello"))
        stack.enter_context(_asking(host, lan.gateway))
        place = urlsplit(web.url)
        yield Site(docker, names, (str(place.hostname), place.port or 80))
        deploy(host, limited_stack, docker.settings())


@contextmanager
def _asking(machine: Machine, server: str) -> Iterator[None]:
    machine.ssh(f"cp /etc/resolv.conf /root/kept; echo nameserver {server} >/etc/resolv.conf")
    try:
        yield
    finally:
        machine.ssh("cat /root/kept >/etc/resolv.conf")


def test_containers_reach_everything_unless_it_is_denied(site: Site) -> None:
    """What the other tests of this file find refused is there to be found."""
    site.deploy("allow")
    assert not site.refused()
    assert look_up(site.machine, "secret.example.com") == NO_SUCH_NAME
    assert site.names.asked == ["secret.example.com"]


def test_denied_connections_are_refused_and_no_lookup_leaves(site: Site) -> None:
    site.deploy("deny")
    assert site.refused()
    site.names.asked.clear()
    for name in ("secret.example.com", "secret"):
        assert look_up(site.machine, name) == SERVER_FAILURE
    # Even without the rules: Docker asks from the container's network.
    site.machine.ssh(f"nft delete table {TABLE}")
    assert look_up(site.machine, "secret.example.com") == SERVER_FAILURE
    assert site.names.asked == []
    assert look_up(site.machine, "llamacpp") == 0
    assert site.machine.ssh("curl -sS http://127.0.0.1:8081/health").stdout == '{"status":"ok"}'


def test_declared_destination_is_reached_by_its_name(site: Site) -> None:
    address, port = site.neighbor
    site.deploy("deny", {"networks": [address], "port": port, "name": "neighbor.lan"})
    assert connects(site.machine, address, port)
    assert not connects(site.machine, address, 22)
    assert not connects(site.machine, site.machine.address, 22)
    process = "$(docker inspect -f '{{.State.Pid}}' llmhost-llamacpp-1)"
    hosts = site.machine.ssh(f"cat /proc/{process}/root/etc/hosts").stdout
    assert f"{address}\tneighbor.lan" in hosts


def test_containers_with_ipv6_are_limited_as_well(site: Site) -> None:
    site.deploy("deny")
    inside(site.machine, "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0")
    inside(site.machine, "ip -6 address add fd99::2/64 dev eth0 nodad")
    inside(site.machine, "ip -6 route add default via fd99::1")
    site.machine.ssh("ip -6 address add fd99::1/64 dev br-llmhost nodad")
    targets = (("fd99::1", 22), (site.machine.address6, 22))
    assert [connects(site.machine, *target) for target in targets] == [False, False]
    site.machine.ssh(f"nft delete table {TABLE}")
    assert [connects(site.machine, *target) for target in targets] == [True, True]


HAPPENINGS = {
    "Docker restarted": "systemctl restart docker",
    # Only dockerd: systemd starts it again, with the rules.
    "Docker killed": "kill -KILL $(systemctl show -P MainPID docker); sleep 1;"
    " timeout 60 sh -c 'until systemctl is-active -q docker; do sleep 1; done'",
    "systemd reloaded": "systemctl daemon-reload",
    "rules of others removed": "iptables -F; iptables -t nat -F; systemctl restart docker",
    "rules removed and Docker restarted": f"nft delete table {TABLE}; systemctl restart docker",
}


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_limits_outlast(site: Site, happening: str) -> None:
    site.deploy("deny")
    # The cases follow each other faster than systemd's limit of starts allows.
    site.machine.ssh(f"systemctl reset-failed docker; {HAPPENINGS[happening]}")
    running = "docker inspect -f '{{.State.Running}}' llmhost-llamacpp-1"
    site.machine.ssh(f"timeout 30 sh -c 'until [ \"$({running})\" = true ]; do sleep 1; done'")
    assert site.refused()


REMOVALS = {
    "the table": f"nft delete table {TABLE}",
    "a rule's meaning": f"nft insert rule {TABLE} containers tcp dport 22 accept",
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_removed_part_is_planned_and_restored(site: Site, removal: str) -> None:
    """`script/test drift` does the same for each part."""
    settings = site.docker.settings(stack_egress="deny")
    site.deploy("deny")
    site.machine.ssh(REMOVALS[removal])
    assert deploy(site.machine, limited_stack, settings, dry=True).changed == [LIMIT]
    assert deploy(site.machine, limited_stack, settings).changed == [LIMIT]
    assert deploy(site.machine, limited_stack, settings).changed == []
    assert site.refused()


CONNECT, LOOK_UP, RULES = (
    "egress.containers-connect-only-to-declared-addresses",
    "egress.containers-look-up-names-of-services-alone",
    "egress.rules-are-loaded-before-docker-starts",
)


def _failed(site: Site, place: Path) -> set[str]:
    """The checks of `verify` that fail on this machine, where egress is declared to be denied."""
    data = site.docker.data() | {"ssh_config_file": str(site.machine.ssh_config)}
    data |= {"stack_egress": "deny"}
    merged, records = place / "merged.json", place / "records"
    merged.write_text(json.dumps({site.machine.name: data}))
    records.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [str(HERE / "test_egress.py"), "--site", str(merged), "--records", str(records)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = [parse(line) for line in records.read_text().splitlines()]
    outcomes = {each.id: each.outcome for each in found if isinstance(each, Check)}
    assert outcomes.keys() == {CONNECT, LOOK_UP, RULES}, ran.stdout
    return {check for check, outcome in outcomes.items() if outcome == "failed"}


@pytest.mark.drift
def test_verify_finds_what_containers_reach(site: Site, tmp_path: Path) -> None:
    site.deploy("allow")
    assert _failed(site, tmp_path) == {CONNECT, LOOK_UP, RULES}
    for removal, failed in (("the table", {CONNECT, RULES}), ("a rule's meaning", {CONNECT})):
        site.deploy("deny")
        assert _failed(site, tmp_path) == set()
        site.machine.ssh(REMOVALS[removal])
        assert _failed(site, tmp_path) == failed


def test_docker_does_not_start_without_the_rules(site: Site) -> None:
    site.deploy("deny")
    site.machine.ssh("mv /etc/llmhost/egress.nft /root/; systemctl stop docker.socket docker")
    try:
        assert site.machine.ssh("systemctl start docker", check=False).returncode
    finally:
        site.machine.ssh("mv /root/egress.nft /etc/llmhost/; systemctl reset-failed docker")
        site.machine.ssh("systemctl start docker.socket docker")


def test_image_builds_still_reach_the_network(site: Site) -> None:
    site.deploy("deny")
    box = root_archive("box", ("busybox-static", "base-files", "base-passwd"), "trixie")
    image = site.docker.registry.push("box", "1", box)
    address, port = site.neighbor
    fetch = f"/usr/bin/busybox wget -qO /tmp/it http://{address}:{port}/file"
    site.machine.ssh("docker build -q -", input=f"FROM {image}\nRUN {_words(fetch)}\n")


def _words(command: str) -> str:
    """A command in the form that needs no shell in the image."""
    return "[" + ", ".join(f'"{word}"' for word in command.split()) + "]"
