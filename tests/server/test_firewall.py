"""The firewall of a provisioned server, on the server and from outside."""

import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.outside import Outside
from llmhost.inventory.role import Role
from llmhost.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Target = tuple[str, int]
"""An address and a TCP port of the server."""

# The rule that admits a controller that no declared rule admits.
LIFELINE = "llmhost: address of the last deploy"
_RULE = re.compile(
    r"^(?P<port>\d+(?::\d+)?)/(?P<protocol>tcp|udp)(?: on (?P<interface>\S+))?(?: \(v6\))?"
    r" +ALLOW IN +"
    r"(?P<source>\S+(?: \(v6\))?) *(?:# (?P<comment>.*))?$"
)
_ANYWHERE = {"Anywhere": "0.0.0.0/0", "Anywhere (v6)": "::/0"}


@dataclass(frozen=True)
class Admitted:
    """A port, or a range of ports, that one network may reach."""

    port: int | str
    protocol: str
    source: Network
    interface: str = ""


@pytest.fixture(scope="session", autouse=True)
def _ufw_is_ours(settings: Settings, role: Role) -> None:
    if role is Role.APP_SERVER and not settings.app_server.firewall:
        does_not_apply("app_server_firewall is off")
    if not settings.firewall.enabled:
        does_not_apply("firewall_enabled is off: another firewall protects this host")


@pytest.fixture(scope="session")
def versions(host: Host) -> tuple[int, ...]:
    """IP versions of the kernel; ufw, too, leaves IPv6 out with ipv6.disable=1."""
    return (4, 6) if host.run("test -e /proc/sys/net/ipv6").succeeded else (4,)


@pytest.fixture(scope="session")
def declared(settings: Settings, role: Role, versions: tuple[int, ...]) -> set[Admitted]:
    firewall = settings.firewall
    ports = [(firewall.ssh_port, "tcp", firewall.ssh_sources)]
    if role is not Role.APP_SERVER:
        ports += [(settings.gateway.port, "tcp", settings.admitted_to_gateway)]
    ports += [(ui.ui_port, "tcp", ui.sources) for ui in settings.uis.values()]
    ports += [(rule.port, rule.protocol, rule.sources) for rule in firewall.rules]
    found = {
        Admitted(port, kind, source)
        for port, kind, sources in ports
        for source in sources
        if source.version in versions
    }
    group = settings.engine_group
    for name, address in group.members.items():
        if name != settings.member:
            member = ipaddress.ip_network(address)
            found.add(Admitted("1024:65535", "tcp", member, group.interface or ""))
    return found


@pytest.fixture(scope="session")
def ufw(host: Host) -> str:
    """What ufw itself reports; it takes long."""
    return host.check_output("ufw status verbose")


@pytest.fixture(scope="session")
def status(ufw: str) -> dict[Admitted, str]:
    """The rules with their comments; an unknown kind of rule fails."""
    _, _, table = ufw.partition("----\n")
    rules = {}
    for line in filter(str.strip, table.splitlines()):
        match = _RULE.match(line.rstrip())
        assert match, f"an undeclared kind of rule: {line}"
        source = ipaddress.ip_network(_ANYWHERE.get(match["source"], match["source"]))
        port = match["port"]
        ports = port if ":" in port else int(port)
        way = match["interface"] or ""
        rules[Admitted(ports, match["protocol"], source, way)] = match["comment"] or ""
    return rules


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def may_reach(
    declared: set[Admitted], status: dict[Admitted, str], clients: dict[str, Address]
) -> Callable[[str, int], bool]:
    """Whether the machine outside is admitted to a TCP port at an address of the server."""
    rules = declared | {rule for rule, comment in status.items() if comment == LIFELINE}

    def asked(address: str, port: int) -> bool:
        ports = (port, "1024:65535") if port >= 1024 else (port,)
        wanted = (rule for rule in rules if rule.port in ports and rule.protocol == "tcp")
        return any(clients[address] in rule.source for rule in wanted)

    return asked


# On one LAN a kernel answers within milliseconds. The limit allows for a second attempt after one
# second, if the first packet was lost. A port that drops packets takes the whole limit, as most of
# those that are not declared should.
_CLOSED_SECONDS, _OPEN_SECONDS = 1.5, 10.0


def _attempts(
    outside: Outside, targets: Iterable[Target], seconds: float
) -> Callable[[], list[Target]]:
    """Start a TCP connection to each target. The returned function waits for them, and returns the
    targets that were reached."""
    limits = ("--connect-timeout", str(seconds), "--max-time", str(seconds + 1))
    write = ("-o", "/dev/null", "-w", "%{time_connect}")  # 0 without a connection
    started = {
        (address, port): outside.start("curl", "-s", *limits, *write, _url(address, port))
        for address, port in targets
    }
    return lambda: [target for target, ends in started.items() if float(ends().stdout) > 0]


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


@pytest.fixture(scope="session")
def listening(host: Host) -> set[int]:
    """TCP ports with a listener on other addresses than loopback."""
    sockets = [line.split()[3] for line in host.check_output("ss -Htln").splitlines()]
    pairs = [socket.rpartition(":") for socket in sockets]
    return {int(port) for address, _, port in pairs if not address.startswith(("127.", "[::1"))}


@pytest.fixture(scope="session")
def reached_undeclared(
    host: Host,
    settings: Settings,
    clients: dict[str, Address],
    listening: set[int],
    may_reach: Callable[[str, int], bool],
    outside: Outside,
) -> Callable[[], list[Target]]:
    """Attempts to reach ports that are not declared: they start with the first check of ports."""
    services = {
        settings.options(service.name).port or service.container_port
        for service in settings.catalogue
    }
    ports = listening | _published(host) | services
    closed = (target for target in product(clients, sorted(ports)) if not may_reach(*target))
    return _attempts(outside, closed, _CLOSED_SECONDS)


def _published(host: Host) -> set[int]:
    """TCP ports that containers publish, on any address."""
    if not host.exists("docker"):
        return set()
    ports = host.check_output("docker ps --format '{{.Ports}}'")
    return {int(port) for port in re.findall(r":(\d+)->\d+/tcp", ports)}


def test_ufw_is_active_and_starts_at_boot(host: Host, ufw: str) -> None:
    assert ufw.startswith("Status: active")
    assert host.check_output("systemctl is-enabled ufw") == "enabled"
    assert "ENABLED=yes" in host.check_output("cat /etc/ufw/ufw.conf").splitlines()


def test_incoming_and_routed_packets_are_denied_by_default(ufw: str) -> None:
    # A host that does not forward reports `disabled`.
    defaults = r"Default: deny \(incoming\), allow \(outgoing\), (deny|disabled) \(routed\)"
    assert re.search(defaults, ufw)


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
def test_rules_are_loaded_in_netfilter(host: Host, versions: tuple[int, ...], program: str) -> None:
    if program == "ip6tables" and 6 not in versions:
        does_not_apply("the kernel runs without IPv6")
    rules = host.check_output(f"{program} -S").splitlines()
    assert {"-P INPUT DROP", "-P FORWARD DROP"} - set(rules) == set(), "missing"
    assert [rule for rule in rules if rule.startswith("-A INPUT") and "-j ACCEPT" in rule] == []


def test_exactly_the_declared_rules_exist(
    declared: set[Admitted], status: dict[Admitted, str]
) -> None:
    assert declared - status.keys() == set(), "declared, but missing"
    extra = {rule: comment for rule, comment in status.items() if rule not in declared}
    assert set(extra.values()) <= {LIFELINE}, extra
    assert all(rule.source.num_addresses == 1 for rule in extra) and len(extra) <= 1


def test_no_change_of_rules_waits_for_confirmation(host: Host) -> None:
    assert host.run("test -e /run/llmhost-firewall/pending").failed


def test_published_ports_are_guarded_before_docker_opens_them(host: Host, role: Role) -> None:
    if not host.exists("docker"):
        does_not_apply("this host has no Docker")
    for command in ("iptables", "ip6tables"):
        listed = host.run(f"{command} -S FORWARD")
        if command == "ip6tables" and (listed.failed or role is not Role.LLM_SERVER):
            continue  # a kernel without IPv6, or a Docker of others, which may not filter it
        assert listed.stdout.splitlines()[1] == "-A FORWARD -j DOCKER-USER"
        assert "-A DOCKER-USER -m conntrack --ctstate DNAT -j DROP" in host.check_output(
            f"{command} -S DOCKER-USER"
        )


def test_docker_starts_with_the_rules_of_ufw_first(host: Host, role: Role) -> None:
    if role is not Role.LLM_SERVER:
        does_not_apply("llmhost does not manage the Docker of this host")
    script = "/usr/local/lib/llmhost/docker-guard-first"
    assert script in host.check_output("systemctl show --property ExecStartPost docker.service")
    assert host.run(f"test -x {script}").succeeded


def test_declared_ports_are_reached_from_outside(
    clients: dict[str, Address],
    listening: set[int],
    may_reach: Callable[[str, int], bool],
    reached_undeclared: Callable[[], list[Target]],
    outside: Outside,
) -> None:
    del reached_undeclared  # started at the same time
    opened = [target for target in product(clients, sorted(listening)) if may_reach(*target)]
    if not opened:
        pytest.skip("the machine outside is in no declared network")
    assert _attempts(outside, opened, _OPEN_SECONDS)() == opened


@pytest.mark.waits
def test_undeclared_ports_are_refused_from_outside(
    reached_undeclared: Callable[[], list[Target]],
) -> None:
    assert reached_undeclared() == []
