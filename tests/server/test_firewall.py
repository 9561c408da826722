"""The firewall of a provisioned server, on the server and from outside."""

import ipaddress
import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.conftest import Outside
from llmhost.inventory.role import Role
from llmhost.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The rule that admits a controller that no declared rule admits.
LIFELINE = "llmhost: address of the last deploy"
_RULE = re.compile(
    r"^(?P<port>\d+)/(?P<protocol>tcp|udp)(?: \(v6\))? +ALLOW +"
    r"(?P<source>\S+(?: \(v6\))?) *(?:# (?P<comment>.*))?$"
)
_ANYWHERE = {"Anywhere": "0.0.0.0/0", "Anywhere (v6)": "::/0"}


@dataclass(frozen=True)
class Admitted:
    """A port that one network may reach."""

    port: int
    protocol: str
    source: Network


@pytest.fixture(scope="module", autouse=True)
def _ufw_is_ours(settings: Settings, role: Role) -> None:
    if role is Role.APP_SERVER and not settings.app_server.firewall:
        does_not_apply("app_server_firewall is off")
    if not settings.firewall.enabled:
        does_not_apply("firewall_enabled is off: another firewall protects this host")


@pytest.fixture(scope="module")
def declared(settings: Settings, role: Role) -> set[Admitted]:
    firewall = settings.firewall
    ports = [(firewall.ssh_port, "tcp", firewall.ssh_sources)]
    if role is not Role.APP_SERVER:
        ports += [(settings.gateway.port, "tcp", settings.admitted_to_gateway)]
    uis = settings.uis.items()
    ports += [(ui.ui_port, "tcp", settings.ui_sources(name)) for name, ui in uis]
    ports += [(rule.port, rule.protocol, rule.sources) for rule in firewall.rules]
    return {Admitted(port, kind, source) for port, kind, sources in ports for source in sources}


@pytest.fixture(scope="module")
def status(host: Host) -> dict[Admitted, str]:
    """The rules that ufw itself reports, with their comments; an unknown kind of rule fails."""
    _, _, table = host.check_output("ufw status").partition("----\n")
    rules = {}
    for line in filter(str.strip, table.splitlines()):
        match = _RULE.match(line.rstrip())
        assert match, f"an undeclared kind of rule: {line}"
        source = ipaddress.ip_network(_ANYWHERE.get(match["source"], match["source"]))
        rules[Admitted(int(match["port"]), match["protocol"], source)] = match["comment"] or ""
    return rules


@pytest.fixture(scope="module")
def clients(host: Host, address: str, outside: Outside) -> dict[str, Address]:
    """The server's addresses that the machine outside can certainly reach, and its own address for
    each.

    These are the address in the inventory, and those on a network that both share.
    """
    named = str(socket.getaddrinfo(address, None)[0][4][0])
    links = json.loads(host.check_output("ip -j address show scope global"))
    own = {a["local"] for link in links for a in link["addr_info"] if "local" in a}
    routes = {one: _route(outside, one) for one in sorted({named, *own})}
    if "prefsrc" not in routes[named]:
        pytest.skip("the machine outside has no iproute2, so its own address is unknown")
    return {
        one: ipaddress.ip_address(route["prefsrc"])
        for one, route in routes.items()
        if one == named or ("prefsrc" in route and "gateway" not in route)
    }


def _route(outside: Outside, server: str) -> dict[str, str]:
    """The route of packets from the machine outside; empty if there is none."""
    try:
        found = outside("ip", "-j", "route", "get", server)
    except FileNotFoundError:
        return {}
    return dict(json.loads(found.stdout)[0]) if found.returncode == 0 else {}


@pytest.fixture(scope="module")
def may_reach(
    declared: set[Admitted], status: dict[Admitted, str], clients: dict[str, Address]
) -> Callable[[str, int], bool]:
    """Whether the machine outside is admitted to a TCP port at an address of the server."""
    rules = declared | {rule for rule, comment in status.items() if comment == LIFELINE}

    def asked(address: str, port: int) -> bool:
        wanted = (rule for rule in rules if (rule.port, rule.protocol) == (port, "tcp"))
        return any(clients[address] in rule.source for rule in wanted)

    return asked


def _connects(outside: Outside, address: str, port: int, seconds: float) -> bool:
    """Whether a TCP connection succeeds; curl reports its duration."""
    url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
    limits = ("--connect-timeout", str(seconds), "--max-time", str(seconds + 1))
    asked = outside("curl", "-s", *limits, "-o", "/dev/null", "-w", "%{time_connect}", url)
    return float(asked.stdout) > 0


def _reached(
    outside: Outside, targets: list[tuple[str, int]], seconds: float = 1.5
) -> list[tuple[str, int]]:
    # On one LAN a kernel answers within milliseconds. The limit allows for a second attempt after
    # one second, if the first packet was lost. A port that drops packets takes the whole limit, as
    # most of these should.
    with ThreadPoolExecutor(32) as pool:
        connected = pool.map(
            lambda target: _connects(outside, target[0], target[1], seconds), targets
        )
        return [target for target, up in zip(targets, connected, strict=True) if up]


def _listening(host: Host) -> set[int]:
    """TCP ports with a listener on other addresses than loopback."""
    sockets = [line.split()[3] for line in host.check_output("ss -Htln").splitlines()]
    pairs = [socket.rpartition(":") for socket in sockets]
    return {int(port) for address, _, port in pairs if not address.startswith(("127.", "[::1"))}


def _published(host: Host) -> set[int]:
    """TCP ports that containers publish, on any address."""
    if not host.exists("docker"):
        return set()
    ports = host.check_output("docker ps --format '{{.Ports}}'")
    return {int(port) for port in re.findall(r":(\d+)->\d+/tcp", ports)}


def test_ufw_is_active_and_starts_at_boot(host: Host) -> None:
    assert host.check_output("ufw status").startswith("Status: active")
    assert host.check_output("systemctl is-enabled ufw") == "enabled"
    assert "ENABLED=yes" in host.check_output("cat /etc/ufw/ufw.conf").splitlines()


def test_incoming_and_routed_packets_are_denied_by_default(host: Host) -> None:
    verbose = host.check_output("ufw status verbose")
    # A host that does not forward reports `disabled`.
    defaults = r"Default: deny \(incoming\), allow \(outgoing\), (deny|disabled) \(routed\)"
    assert re.search(defaults, verbose)


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
def test_netfilter_is_loaded_with_it(host: Host, program: str) -> None:
    rules = host.check_output(f"{program} -S").splitlines()
    assert {"-P INPUT DROP", "-P FORWARD DROP"} - set(rules) == set(), "missing"
    assert [rule for rule in rules if rule.startswith("-A INPUT") and "-j ACCEPT" in rule] == []


def test_exactly_the_declared_rules_are_there(
    declared: set[Admitted], status: dict[Admitted, str]
) -> None:
    assert declared - status.keys() == set(), "declared, but missing"
    extra = {rule: comment for rule, comment in status.items() if rule not in declared}
    assert set(extra.values()) <= {LIFELINE}, extra
    assert all(rule.source.num_addresses == 1 for rule in extra) and len(extra) <= 1


def test_no_change_of_rules_waits_for_confirmation(host: Host) -> None:
    assert host.run("test -e /run/llmhost-firewall/pending").failed


def test_published_ports_are_guarded_before_docker_opens_them(host: Host) -> None:
    if not host.exists("docker"):
        does_not_apply("this host has no Docker")
    forward = host.check_output("iptables -S FORWARD").splitlines()
    assert forward[1] == "-A FORWARD -j DOCKER-USER"
    assert "-A DOCKER-USER -m conntrack --ctstate DNAT -j DROP" in host.check_output(
        "iptables -S DOCKER-USER"
    )


def test_undeclared_ports_are_refused_from_outside(
    host: Host,
    settings: Settings,
    clients: dict[str, Address],
    may_reach: Callable[[str, int], bool],
    outside: Outside,
) -> None:
    services = {
        settings.options(service.name).port or service.container_port
        for service in settings.catalogue
    }
    ports = _listening(host) | _published(host) | services
    closed = [target for target in product(clients, sorted(ports)) if not may_reach(*target)]
    assert _reached(outside, closed) == []


def test_declared_ports_are_reached_from_outside(
    host: Host,
    clients: dict[str, Address],
    may_reach: Callable[[str, int], bool],
    outside: Outside,
) -> None:
    opened = [target for target in product(clients, sorted(_listening(host))) if may_reach(*target)]
    if not opened:
        pytest.skip("the machine outside is in no declared network")
    assert _reached(outside, opened, seconds=10) == opened
