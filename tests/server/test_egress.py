"""Where containers of a provisioned server may connect to, tried from inside each of them.

Programs of the host run in the network namespace of a container, because images need not have any.
"""

import base64
import json
import shlex
from collections.abc import Mapping
from ipaddress import ip_address
from itertools import product

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.settings import Settings

# Addresses for documentation (RFC 5737, RFC 3849): nobody has them, and the way there is outside.
NOWHERE = ("192.0.2.1", "2001:db8::1")
REJECTED, NO_ROUTE = "Connection refused", "Network is unreachable"
NO_IPV6 = "Address family not supported by protocol"
"""The kernel runs with ipv6.disable=1."""
SERVER_FAILURE = 2
RULES = "/etc/llmhost/egress.nft"
CONNECT = """for target; do
  set -- $target
  said=$(timeout 5 bash -c "exec 3<>/dev/tcp/$1/$2" 2>&1 && echo connected)
  echo "$target: $(echo "${said:-no answer}" | tail -n 1)"
done"""
LOOK_UP = """for query; do
  exec 3<>/dev/udp/127.0.0.11/53
  echo "$query" | base64 -d >&3
  timeout 5 dd bs=512 count=1 <&3 2>/dev/null | od -An -tu1 -N8
done"""


@pytest.fixture(scope="module", autouse=True)
def _egress_is_limited(settings: Settings) -> None:
    if settings.stack.egress == "allow" or not settings.services:
        does_not_apply("stack_egress is allow, or no service is declared")


@pytest.fixture(scope="module")
def processes(host: Host, settings: Settings) -> dict[str, int]:
    """The first process of each container of the stack that runs."""
    label = f"label=com.docker.compose.project={settings.stack.project}"
    ids = host.check_output(f"docker ps --quiet --filter {label}").split()
    shown = '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Pid}}'
    lines = host.check_output(f"docker inspect --format '{shown}' {shlex.join(ids)}").splitlines()
    found = {service: int(pid) for service, pid in (line.split() for line in lines)}
    grouped = settings.group_services
    bridged = {service: pid for service, pid in found.items() if service not in grouped}
    if not bridged:
        does_not_apply("no container of the stack is in its network")
    return bridged


@pytest.fixture(scope="module")
def targets(host: Host, settings: Settings) -> list[tuple[str, int]]:
    """The host's own addresses at ports that answer there, its name servers, and the outside."""
    links = json.loads(host.check_output("ip -j address show up"))
    own = [
        each["local"]
        for link in links
        for each in link["addr_info"]
        if each.get("scope") == "global" and link["ifname"] != "lo"
    ]
    # A service that reads metrics calls the gateway of its own host.
    gateway = () if settings.gateway_callers else (settings.gateway.port,)
    ports = (settings.firewall.ssh_port, *gateway)
    servers = host.check_output("awk '$1 == \"nameserver\" { print $2 }' /etc/resolv.conf").split()
    outside = [each for each in servers if not ip_address(each.partition("%")[0]).is_loopback]
    return [*product(NOWHERE, (53, 443)), *product(own, ports), *product(outside, (53,))]


def _inside(host: Host, pid: int, script: str, *arguments: str) -> list[str]:
    """Lines that a bash script prints in the network of a process."""
    command = shlex.join(["nsenter", "--target", str(pid), "--net", "bash", "-c", script, "bash"])
    return host.check_output(f"{command} {shlex.join(arguments)}").splitlines()


def _is_declared(settings: Settings, address: str, port: int) -> bool:
    return any(
        port == each.port and ip_address(address) in network
        for each in settings.destinations
        for network in each.networks
    )


def test_containers_connect_only_to_declared_addresses(
    host: Host, settings: Settings, processes: Mapping[str, int], targets: list[tuple[str, int]]
) -> None:
    undeclared = [f"{a} {port}" for a, port in targets if not _is_declared(settings, a, port)]
    for service, pid in processes.items():
        before = _rejected(host)
        answers = _inside(host, pid, CONNECT, *undeclared)
        assert len(answers) == len(undeclared)
        others = [each for each in answers if not each.endswith((REJECTED, NO_ROUTE, NO_IPV6))]
        assert others == [], service
        # By the rules, and not by something on the way.
        attempts = [each for each in answers if each.endswith(REJECTED)]
        assert _rejected(host) - before >= len(attempts) > 0, service


def _rejected(host: Host) -> int:
    """How many packets the rules have rejected."""
    listed = json.loads(host.check_output("nft --json list table inet llmhost_egress"))["nftables"]
    expressions = [each for entry in listed for each in entry.get("rule", {}).get("expr", ())]
    (counter,) = [each["counter"] for each in expressions if "counter" in each]
    return int(counter["packets"])


def _query(name: str) -> str:
    """A DNS request for an address (RFC 1035, section 4), as base64."""
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    header = b"\x12\x34\x01\x00\x00\x01" + bytes(6)
    return base64.b64encode(header + labels + b"\x00\x00\x01\x00\x01").decode()


def test_containers_look_up_names_of_services_alone(
    host: Host, settings: Settings, processes: Mapping[str, int]
) -> None:
    shown = "{{.Name}} {{json .HostConfig.Dns}}"
    names = [f"{settings.stack.project}-{service}-1" for service in processes]
    asked = host.check_output(f"docker inspect --format '{shown}' {' '.join(names)}").splitlines()
    # Docker itself asks the host's name servers if a container has none of its own.
    assert {line.split()[1] for line in asked} == {'["127.0.0.1"]'}, asked
    for service, pid in processes.items():
        queries = [_query(name) for name in (*processes, "example.com", "outside")]
        headers = [[*map(int, line.split())] for line in _inside(host, pid, LOOK_UP, *queries)]
        codes = [header[3] & 15 for header in headers]
        assert codes == [*(0 for _ in processes), SERVER_FAILURE, SERVER_FAILURE], service


def test_rules_are_loaded_before_docker_starts(host: Host, settings: Settings) -> None:
    start = host.check_output("systemctl show -P ExecStartPre docker.service")
    assert f"argv[]=/usr/sbin/nft -f {RULES} ;" in start
    listed = json.loads(host.check_output("nft --json list table inet llmhost_egress"))["nftables"]
    chains = [each["chain"] for each in listed if "hook" in each.get("chain", {})]
    hooks = {"forward", "input", *(["output"] if settings.member else [])}
    assert {chain["hook"] for chain in chains} == hooks
    if {*settings.services} == {"vllm"} and settings.member:
        return  # Compose creates no network
    option = '{{index .Options "com.docker.network.bridge.name"}}'
    network = f"{settings.stack.project}_default"
    bridge = host.check_output(f"docker network inspect --format '{option}' {network}")
    assert json.dumps(bridge) in host.check_output("nft list table inet llmhost_egress")
