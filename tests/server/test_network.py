"""The declared name and addresses of a host."""

import re
from typing import Any

import pytest

from llmhost.checks.applies import does_not_apply
from llmhost.options.network import HostNetwork
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def declared(settings: Settings) -> HostNetwork:
    return settings.network


def test_host_has_the_declared_name(host: Any, declared: HostNetwork) -> None:
    if declared.hostname is None:
        does_not_apply("no hostname is declared")
    assert host.check_output("uname -n") == declared.hostname
    assert host.check_output("cat /etc/hostname") == declared.hostname
    assert host.run(f"getent hosts {declared.hostname}").succeeded


def test_declared_names_resolve_to_their_addresses(host: Any, declared: HostNetwork) -> None:
    if not declared.hosts:
        does_not_apply("no names are declared")
    for name, address in declared.hosts.items():
        assert str(address) in host.check_output(f"getent ahosts {name}").split()


def test_host_has_its_addresses_permanently(host: Any, declared: HostNetwork) -> None:
    if not declared.addresses:
        does_not_apply("no addresses are declared")
    shown = host.check_output("ip -o address show")
    for address in declared.addresses:
        (line,) = [line for line in shown.splitlines() if f" {address} " in line]
        assert "dynamic" not in line and "valid_lft forever" in line
    routes = host.check_output("ip -4 route show default; ip -6 route show default")
    for gateway in declared.gateways:
        assert re.search(rf"via {re.escape(str(gateway))} ", routes)


def test_addresses_are_saved_and_confirmed(host: Any, declared: HostNetwork) -> None:
    if not declared.addresses:
        does_not_apply("no addresses are declared")
    written = host.check_output("cat /etc/netplan/*.yaml /etc/systemd/network/*.network; true")
    assert all(str(address) in written for address in declared.addresses)
    assert host.run("test -e /run/llmhost-network/pending").failed
    assert host.check_output("ls /run/systemd/network /run/netplan | grep trial; true") == ""


def test_host_uses_the_declared_name_servers(host: Any, declared: HostNetwork) -> None:
    if not declared.dns:
        does_not_apply("no name servers are declared")
    asked = host.check_output("cat /run/systemd/resolve/resolv.conf || cat /etc/resolv.conf")
    servers = re.findall(r"^nameserver (\S+)", asked, re.MULTILINE)
    assert servers[: len(declared.dns)] == [str(server) for server in declared.dns]
