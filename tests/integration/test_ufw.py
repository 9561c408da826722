"""The firewall under real pyinfra: what outsiders reach, and what can not be broken."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.tasks.firewall import guard_host
from testbed import Client, Lan, Machine
from tests.integration.harness import Outcome, converge, deploy

pytestmark = pytest.mark.machines

ADMIT = "Firewall | Admit only the declared networks"
GATEWAY, UNDECLARED, PUBLISHED = 8080, 9001, 9000
PORTS = (22, GATEWAY, UNDECLARED, PUBLISHED)
CONFIRM_SECONDS = 10
RULES = "iptables -S; ip6tables -S"

# BusyBox is all that an image without a registry needs to serve and to ask.
CONTAINERS = f"""
set -e; export DEBIAN_FRONTEND=noninteractive
apt-get update -qq; apt-get install -y -qq docker.io busybox-static >/dev/null 2>&1
tar -C / -c usr/bin/busybox | docker import - tools >/dev/null
run="docker run -d --restart always"
$run --name published -p {PUBLISHED}:80 tools /usr/bin/busybox httpd -f -p 80 >/dev/null
docker network create apart >/dev/null
$run --name peer --network apart tools /usr/bin/busybox httpd -f -p 80 >/dev/null
$run --name asking --network apart tools /usr/bin/busybox sleep 100000 >/dev/null
"""
LISTENERS = f"""
for port in {GATEWAY} {UNDECLARED}; do
  systemd-run --quiet --unit=listener-$port python3 -m http.server --bind :: --directory /srv $port
done
for port in {GATEWAY} {UNDECLARED} {PUBLISHED}; do
  until ss -Htln | grep -q ":$port "; do sleep 0.1; done
done
"""
_CONNECT = """
import concurrent.futures, json, socket, sys
def connects(target):
    try:
        return socket.create_connection(target, 1.5).close() is None
    except OSError:
        return False
targets = [tuple(target) for target in json.loads(sys.argv[1])]
with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps([t for t, up in zip(targets, pool.map(connects, targets)) if up]))
"""


def _guard(data: dict[str, Any]) -> None:
    guard_host(settings=read_settings({"firewall_confirm_seconds": CONFIRM_SECONDS, **data}))


Target = tuple[str, int]


@dataclass
class Scene:
    """A server, a client whose network is declared, and one whose network is not."""

    server: Machine
    insider: Client
    outsider: Client

    @property
    def declared(self) -> dict[str, Any]:
        """Neither SSH nor anything else for the controller, whose address is another."""
        return {"firewall_ssh_sources": [self.insider.address, self.insider.address6]}

    def reached(self, client: Client, *ports: int) -> set[Target]:
        """The addresses, of both IP versions, and ports of the server that answer the client."""
        return _connects(client, {(address, port) for address in self.both for port in ports})

    @property
    def both(self) -> set[str]:
        return {self.server.address, self.server.address6}

    def at(self, *ports: int) -> set[Target]:
        return {(address, port) for address in self.both for port in ports}


def _connects(client: Client, targets: set[Target]) -> set[Target]:
    reply = client.run([sys.executable, "-I", "-c", _CONNECT, json.dumps([*targets])])
    return {(address, port) for address, port in json.loads(reply.stdout)}


@pytest.fixture(scope="module")
def scene(lan: Lan) -> Iterator[Scene]:
    scene = Scene(lan.machine("guarded"), lan.client("insider"), lan.client("outsider"))
    scene.server.ssh(CONTAINERS + LISTENERS)
    yield scene
    for host in (scene.server, scene.insider, scene.outsider):
        host.destroy()


@pytest.fixture(scope="module")
def guarded(scene: Scene) -> Scene:
    """After the first deploy; before it everything was open, or the tests would prove nothing."""
    assert scene.reached(scene.outsider, *PORTS) == scene.at(*PORTS)
    planned = deploy(scene.server, _guard, scene.declared, dry=True)
    outcome = converge(scene.server, _guard, scene.declared)
    assert planned.changed == outcome.changed == ["Firewall | Install ufw", ADMIT]
    assert "stays open to" in outcome.output
    return scene


def _assert_guarded(scene: Scene) -> None:
    """What the declaration comes to, as seen by both clients."""
    assert scene.reached(scene.insider, *PORTS) == scene.at(22, GATEWAY)
    assert scene.reached(scene.outsider, *PORTS) == scene.at(GATEWAY)


def test_only_declared_ports_are_reached_and_only_from_declared_sources(guarded: Scene) -> None:
    _assert_guarded(guarded)
    status = guarded.server.ssh("ufw status verbose").stdout
    assert "Default: deny (incoming), allow (outgoing), deny (routed)" in status
    assert str(UNDECLARED) not in status


def test_deploy_from_an_undeclared_address_keeps_its_own_way_in(guarded: Scene) -> None:
    def fresh() -> bool:
        argv = ["ssh", "-F", str(guarded.server.ssh_config), "-o", "ControlPath=none", "guarded"]
        return subprocess.run([*argv, "true"]).returncode == 0

    assert fresh()
    assert deploy(guarded.server, _guard, guarded.declared, sudo=True).changed == []
    guarded.server.ssh("iptables -F DOCKER-USER")
    assert deploy(guarded.server, _guard, guarded.declared, sudo=True).changed == [ADMIT]
    assert fresh()


def test_published_port_is_reached_from_the_host_only(guarded: Scene) -> None:
    for address in ("127.0.0.1", guarded.server.address):
        guarded.server.ssh(f"curl -sS --max-time 5 http://{address}:{PUBLISHED}/")


def test_published_port_is_reached_where_it_is_declared(guarded: Scene) -> None:
    sources = [guarded.insider.address, guarded.insider.address6]
    rules = {"firewall_rules": [{"port": PUBLISHED, "sources": sources}]}
    converge(guarded.server, _guard, {**guarded.declared, **rules})
    assert guarded.reached(guarded.insider, PUBLISHED) == guarded.at(PUBLISHED)
    assert guarded.reached(guarded.outsider, PUBLISHED) == set()
    converge(guarded.server, _guard, guarded.declared)
    assert guarded.reached(guarded.insider, PUBLISHED) == set()


def test_container_is_not_reached_by_a_route_through_the_host(guarded: Scene) -> None:
    inspect = "docker inspect -f '{{.NetworkSettings.IPAddress}}' published"
    container = guarded.server.ssh(inspect).stdout.strip()
    guarded.outsider.run(["ip", "route", "add", container, "via", guarded.server.address])
    direct = {(container, 80)}
    assert _connects(guarded.outsider, direct) == set()
    guarded.server.ssh("iptables -I DOCKER-USER -j RETURN")  # the negative: only that stops it
    assert _connects(guarded.outsider, direct) == direct
    assert deploy(guarded.server, _guard, guarded.declared).changed == [ADMIT]
    assert _connects(guarded.outsider, direct) == set()


def test_containers_reach_each_other_and_the_outside(guarded: Scene) -> None:
    listener = subprocess.Popen(
        guarded.outsider.command([sys.executable, "-m", "http.server", "8000"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for address in ("peer:80", f"{guarded.outsider.address}:8000"):
            ask = f"docker exec asking /usr/bin/busybox wget -T 5 -O /dev/null http://{address}/"
            reply = guarded.server.ssh(f"sleep 1; {ask}", check=False).stderr
            assert "404" in reply or "saved" in reply, reply  # either way somebody answered
    finally:
        listener.kill()
        listener.wait()


@pytest.mark.parametrize(
    "event", ["systemctl restart docker", "ufw reload", "systemctl restart ufw", "reboot"]
)
def test_protection_outlives(guarded: Scene, event: str) -> None:
    if event == "reboot":
        guarded.server.reboot()
        guarded.server.ssh(LISTENERS)
    else:
        guarded.server.ssh(event)
    guarded.server.ssh(f"until ss -Htln | grep -q :{PUBLISHED}; do sleep 0.1; done")
    _assert_guarded(guarded)
    assert deploy(guarded.server, _guard, guarded.declared).changed == []


DRIFT = {
    "rule added by hand": f"ufw allow {UNDECLARED}/tcp",
    "rule deleted by hand": f"ufw delete allow {GATEWAY}/tcp",
    "rules in another order": f"ufw delete allow {GATEWAY}/tcp; ufw insert 1 allow {GATEWAY}/tcp",
    "route rule": "ufw route allow in on eth0",
    "firewall disabled": "ufw --force disable",
    "service disabled": "systemctl disable ufw",
    "service masked": "systemctl mask ufw",
    "service stopped": "systemctl stop ufw",
    "IPv6 given up": "sed -i s/IPV6=yes/IPV6=no/ /etc/default/ufw; ufw reload",
    "default policy": "ufw default allow incoming",
    "switched off on disk only": "sed -i s/ENABLED=yes/ENABLED=no/ /etc/ufw/ufw.conf",
    "marked block removed": "sed -i '/BEGIN llmhost/,$d' /etc/ufw/after.rules; ufw reload",
    "file edited and not loaded": "echo '# note' >>/etc/ufw/before.rules",
    "file readable by all": "chmod 0644 /etc/ufw/user.rules",
    "rule unloaded": f"iptables -D ufw-user-input -p tcp --dport {GATEWAY} -j ACCEPT",
    "IPv6 rules flushed": "ip6tables -F ufw6-user-input",
    "everything flushed": "for f in iptables ip6tables; do $f -P INPUT ACCEPT; $f -F INPUT; done",
    "netfilter emptied": "nft flush ruleset; systemctl restart docker",
    "IPv6 chain edited": "ip6tables -I ufw6-before-input -p tcp -j ACCEPT",
    "opening before ufw": f"iptables -I INPUT -p tcp --dport {UNDECLARED} -j ACCEPT",
    "opening after ufw": f"ip6tables -A INPUT -p tcp --dport {UNDECLARED} -j ACCEPT",
    "refusal of everything": "ip6tables -A INPUT -j REJECT",
    "containers' guard flushed": "iptables -F DOCKER-USER",
    "containers' guard passed by": "iptables -I DOCKER-USER -i eth0 -j RETURN",
    "containers' guard not asked": "iptables -D FORWARD -j DOCKER-USER",
    "containers' guard asked too late": "iptables -I FORWARD -i eth0 -j ACCEPT",
}


@pytest.mark.drift
@pytest.mark.parametrize("drift", DRIFT)
def test_drift_is_found_and_corrected(guarded: Scene, drift: str) -> None:
    before = _loaded(guarded.server)
    guarded.server.ssh(DRIFT[drift])
    outcome = deploy(guarded.server, _guard, guarded.declared)
    assert outcome.changed == [ADMIT], outcome.output
    assert _loaded(guarded.server) == before
    _assert_guarded(guarded)
    assert "enabled" in guarded.server.ssh("systemctl is-enabled ufw").stdout
    assert deploy(guarded.server, _guard, guarded.declared).changed == []


def _loaded(server: Machine) -> list[str]:
    """All that ufw or we put into netfilter; what a hand-made rule moved in FORWARD counts too."""
    own = ("-A INPUT", "-A OUTPUT -j ufw", "-A FORWARD -j ufw", "-A ufw", "-A DOCKER-USER", "-P")
    return sorted(line for line in server.ssh(RULES).stdout.split("\n") if line.startswith(own))


def test_ufw_itself_writes_what_we_render(guarded: Scene) -> None:
    """Otherwise its next `ufw allow` might misread our file, or `ufw reload` look like drift."""
    rendered = guarded.server.ssh("cat /etc/ufw/user*.rules").stdout
    guarded.server.ssh(f"ufw allow {UNDECLARED}/tcp; ufw delete allow {UNDECLARED}/tcp")
    assert guarded.server.ssh("cat /etc/ufw/user*.rules").stdout == rendered
    assert deploy(guarded.server, _guard, guarded.declared).changed == []


_KNOCK = """
import socket, sys, time
end = time.monotonic() + 1
while time.monotonic() < end:
    with socket.socket() as door:
        door.settimeout(0.02)
        if door.connect_ex((sys.argv[1], int(sys.argv[2]))) == 0:
            sys.exit(7)
"""


def test_host_is_never_open_while_rules_are_replaced(guarded: Scene) -> None:
    done = threading.Event()

    def opened(port: int) -> bool:
        knock = [sys.executable, "-c", _KNOCK, guarded.server.address, str(port)]
        while True:
            last = done.is_set()
            if guarded.outsider.run(knock, check=False).returncode == 7:
                return True
            if last:
                return False

    assert opened(GATEWAY)
    guarded.server.ssh("iptables -F ufw-after-input")
    with ThreadPoolExecutor() as pool:
        knocking = pool.submit(opened, UNDECLARED)
        try:
            assert deploy(guarded.server, _guard, guarded.declared).changed == [ADMIT]
        finally:
            done.set()
        assert not knocking.result()


def test_connection_in_use_goes_on_while_its_source_is_shut_out(guarded: Scene) -> None:
    talk = "for i in $(seq 80); do echo $i; sleep 0.1; done"
    argv = ["ssh", "-F", str(guarded.server.ssh_config), "-o", "ControlPath=none", "guarded", talk]
    session = subprocess.Popen(guarded.insider.command(argv), stdout=subprocess.PIPE, text=True)
    assert session.stdout and session.stdout.readline() == "1\n"
    elsewhere = {"firewall_ssh_sources": ["192.0.2.1"]}
    assert deploy(guarded.server, _guard, elsewhere).changed == [ADMIT]
    assert guarded.reached(guarded.insider, 22) == set()
    assert session.communicate(timeout=20)[0].endswith("80\n")
    assert deploy(guarded.server, _guard, guarded.declared).changed == [ADMIT]


# What a trial loads last is followed, once, by a rule that shuts the controller out.
_SABOTAGE = """cat >/root/sabotage <<'END'
#!/bin/sh
ip6tables-nft-restore "$@" || exit
case "$1 $2" in "--noflush --wait")
    ln -sf /etc/alternatives/ip6tables-restore /usr/sbin/ip6tables-restore
    iptables -I INPUT %s -j DROP
esac
END
chmod +x /root/sabotage; ln -sf /root/sabotage /usr/sbin/ip6tables-restore"""
NEW_ONES = "-p tcp --dport 22 --syn"
EVERY_PACKET = "-p tcp --dport 22"


@pytest.mark.parametrize("packets", [NEW_ONES, EVERY_PACKET])
def test_rules_that_shut_the_controller_out_are_undone(guarded: Scene, packets: str) -> None:
    before = guarded.server.ssh(f"cat /etc/ufw/*.rules; {RULES}").stdout
    guarded.server.ssh(_SABOTAGE % packets)
    began = time.monotonic()
    outcome = deploy(guarded.server, _guard, {"firewall_ssh_sources": ["0.0.0.0/0"]})
    assert time.monotonic() - began < CONFIRM_SECONDS + 35
    assert not outcome.succeeded
    assert "locked the controller out and were undone; nothing has changed" in outcome.output
    after = guarded.server.ssh(f"cat /etc/ufw/*.rules; {RULES}").stdout
    assert after == before
    assert deploy(guarded.server, _guard, guarded.declared).changed == []


def _deploy_and_die(scene: Scene, data: dict[str, Any]) -> None:
    """A controller that loses its power between loading new rules and coming in again."""
    scene.server.ssh(_SABOTAGE % NEW_ONES)
    with ThreadPoolExecutor() as pool:
        running: Any = pool.submit(deploy, scene.server, _guard, data)
        scene.server.ssh("until iptables -S INPUT | grep -q -e '-j DROP'; do sleep 0.05; done")
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        outcome: Outcome = running.result()
    assert not outcome.succeeded
    assert scene.reached(scene.outsider, UNDECLARED) == scene.at(UNDECLARED)


def _children() -> list[int]:
    """pyinfra's processes that this one started."""
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "inventory.py deploy.py"],
        capture_output=True,
        text=True,
    )
    return [int(pid) for pid in found.stdout.split()]


OTHER = {"firewall_rules": [{"port": UNDECLARED, "sources": ["0.0.0.0/0", "::/0"]}]}


def test_trial_of_a_dead_controller_is_undone(guarded: Scene) -> None:
    _deploy_and_die(guarded, {**guarded.declared, **OTHER})
    time.sleep(CONFIRM_SECONDS + 1)
    _assert_guarded(guarded)
    assert deploy(guarded.server, _guard, guarded.declared).changed == []


@pytest.mark.faults
def test_next_run_takes_the_trial_over(guarded: Scene) -> None:
    data = {**guarded.declared, **OTHER}
    _deploy_and_die(guarded, data)
    guarded.server.ssh(f"iptables -D INPUT {NEW_ONES} -j DROP")
    converge(guarded.server, _guard, data)
    time.sleep(CONFIRM_SECONDS + 1)
    assert guarded.reached(guarded.outsider, UNDECLARED) == guarded.at(UNDECLARED)
    converge(guarded.server, _guard, guarded.declared)
    _assert_guarded(guarded)


def test_reboot_ends_a_trial(guarded: Scene) -> None:
    _deploy_and_die(guarded, {**guarded.declared, **OTHER})
    guarded.server.kill()
    guarded.server.start()
    guarded.server.ssh(LISTENERS)
    _assert_guarded(guarded)
    assert deploy(guarded.server, _guard, guarded.declared).changed == []


def test_rules_that_ufw_can_not_load_change_nothing(guarded: Scene) -> None:
    guarded.server.ssh("cp -p /etc/ufw/before.rules /root; echo nonsense >>/etc/ufw/before.rules")
    before = guarded.server.ssh(RULES).stdout
    assert not deploy(guarded.server, _guard, {**guarded.declared, **OTHER}).succeeded
    assert guarded.server.ssh(RULES).stdout == before
    guarded.server.ssh("cp -p /root/before.rules /etc/ufw/before.rules")
    assert deploy(guarded.server, _guard, guarded.declared).changed == []


USE = "for f in iptables ip6tables; do update-alternatives --set $f /usr/sbin/$f-%s; done"


def test_two_backends_at_once_are_refused(guarded: Scene) -> None:
    guarded.server.ssh(USE % "legacy")
    outcome = deploy(guarded.server, _guard, guarded.declared)
    assert not outcome.succeeded and "iptables-nft still has rules of ufw" in outcome.output
    guarded.server.ssh(USE % "nft")
    assert deploy(guarded.server, _guard, guarded.declared).changed == []


@pytest.mark.flavours
def test_docker_may_come_after_the_firewall(lan: Lan) -> None:
    """And on iptables' older backend, which Docker and ufw then share."""
    client, server = lan.client("passer-by"), lan.machine("late")
    try:
        use = (
            "for f in iptables ip6tables; do update-alternatives --set $f /usr/sbin/$f-legacy; done"
        )
        server.ssh(f"apt-get update -qq; apt-get install -y -qq iptables >/dev/null 2>&1; {use}")
        converge(server, _guard, {})
        server.ssh(CONTAINERS + LISTENERS)
        scene = Scene(server, client, client)
        assert scene.reached(client, *PORTS) == scene.at(22, GATEWAY)
        assert deploy(server, _guard, {}).changed == []
        server.ssh("iptables -I DOCKER-USER -j RETURN")
        assert scene.reached(client, PUBLISHED) == {(server.address, PUBLISHED)}
        converge(server, _guard, {})
        assert scene.reached(client, PUBLISHED) == set()
    finally:
        server.destroy()
        client.destroy()
