"""The host's own address: mistakes told beforehand, files as netplan and networkd want them."""

import base64
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest
import yaml

from llmhost.facts.hostname import Hostname, Names
from llmhost.facts.network import HostNetworking, parse_state
from llmhost.facts.resolver import Resolver
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_rules import site_problems
from llmhost.system import addresses, netplan, resolver
from llmhost.system.addresses import Addressing, LiveAddress, NetworkState
from llmhost.system.files import File, PathState
from llmhost.template import render

GOOD = {
    "network_addresses": ["192.168.0.100/24", "fd00::100/64"],
    "network_gateways": ["192.168.0.1", "fd00::1"],
    "network_dns": ["192.168.0.1"],
}


def test_good_addresses_are_read() -> None:
    settings = read_settings(GOOD)
    assert [str(each.ip) for each in settings.network.addresses] == ["192.168.0.100", "fd00::100"]
    read_settings({**GOOD, "network_gateways": ["fe80::1"]})  # as routers of IPv6 call themselves
    read_settings({"network_addresses": ["192.0.2.4/31"], "network_dns": []})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"network_addresses": ["192.168.0.100"]},
            "write it like '192.168.0.100/24'",
        ),
        ({"network_addresses": ["192.168.0/24"]}, "write an address with its prefix"),
        ({"network_addresses": ["192.168.0.100/33"]}, "[0]: is '192.168.0.100/33'"),
        ({"network_addresses": [3232235620]}, "[0]: is 3232235620; write an address"),
        ({"network_addresses": ["192.168.0.0/24"]}, "the address of the network itself"),
        ({"network_addresses": ["192.168.0.255/24"]}, "the network's broadcast address"),
        ({"network_addresses": ["fd00::/64"]}, "the address of the network itself"),
        ({"network_addresses": ["127.0.0.1/8"]}, "which no host can have"),
        ({"network_addresses": ["fe80::1/64"]}, "valid on one link only"),
        (
            {"network_addresses": ["192.168.0.100/24", "192.168.0.100/25"]},
            "holds 192.168.0.100 twice",
        ),
        (
            {"network_addresses": ["192.168.0.100/24", "192.168.0.101/16"]},
            "whose networks overlap",
        ),
        ({"network_gateways": ["192.168.1.1"]}, "192.168.1.1, which is in no network of addresses"),
        ({"network_gateways": ["192.168.0.100"]}, "which is the host's own address"),
        ({"network_gateways": ["192.168.0.1", "192.168.0.2"]}, "more than one IPv4 gateway"),
        ({"network_gateways": ["router"]}, "network_gateways"),
        ({"network_addresses": []}, "gateways: require network_addresses"),
        ({"network_dns": None}, "dns: is missing, and a host with static addresses"),
        ({"network_dns": [], "network_search_domains": ["lan"]}, "only work with dns"),
        ({"network_interface": "eth0; reboot"}, "network_interface"),
        ({"network_hostname": "Llm_Server"}, "network_hostname"),
        ({"network_hosts": {"bad name": "192.168.0.9"}}, "network_hosts"),
        ({"network_hosts": {"db": "somewhere"}}, "network_hosts"),
        ({"network_confirm_seconds": 5}, "network_confirm_seconds"),
        ({"docker_address_pool": "192.168.0.0/20"}, "overlaps 192.168.0.0/24, the host's own"),
    ],
)
def test_mistake_is_told_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({**GOOD, **changes})
    told = [problem.sentence("host") for problem in caught.value.problems]
    assert any(sentence in each for each in told), told


@pytest.mark.parametrize(
    ("other", "contact", "taken"),
    [
        ({}, "192.168.0.100", True),
        ({**GOOD, "network_gateways": []}, "192.168.0.7", True),
        # It moves away: its present address may be taken over.
        ({"network_addresses": ["192.168.0.8/24"], "network_dns": []}, "192.168.0.100", False),
        ({}, "192.168.0.7", False),
    ],
)
def test_address_of_another_host_is_refused(
    other: dict[str, Any], contact: str, taken: bool
) -> None:
    host = SiteHost("one", read_settings(GOOD), contact="192.168.0.5")
    site = {"one": host, "two": SiteHost("two", read_settings(other), contact=contact)}
    told = [problem.what for problem in site_problems(host, site)]
    assert ("holds 192.168.0.100, which is the address of two" in told) is taken


WANTED = Addressing(
    (ip_interface("192.168.0.100/24"), ip_interface("fd00::100/64")),
    (ip_address("192.168.0.1"), ip_address("fd00::1")),
)
LEASED = LiveAddress("eth0", ip_interface("192.168.0.57/24"), dynamic=True)
BEFORE = NetworkState(
    macs={"lo": "00:00:00:00:00:00", "eth0": "02:00:00:00:00:01", "eth1": "02:00:00:00:00:02"},
    addresses=[LEASED],
    routes=[("eth0", "192.168.0.1")],
    server=ip_address("192.168.0.57"),
    managers={"eth0": ["networkd"]},
)


def written(state: NetworkState) -> NetworkState:
    """The host after the change, with the files that it leads to."""
    files = addresses.files(WANTED, state)
    paths = {f.path: PathState("file", "root", "root", f.mode, 1.0, f.sha256) for f in files}
    return replace(
        state,
        addresses=[LiveAddress("eth0", each, dynamic=False) for each in WANTED.addresses],
        routes=[("eth0", "192.168.0.1"), ("eth0", "fd00::1")],
        netplan={**state.netplan, **{f.path: str(f.content) for f in files if state.netplan}},
        paths=paths,
    )


def reasons(state: NetworkState, wanted: Addressing = WANTED) -> list[str]:
    return addresses.drift(wanted, addresses.files(wanted, state), state)


def test_lease_in_place_of_the_declared_address_is_drift() -> None:
    assert reasons(BEFORE) == [
        "eth0 lacks 192.168.0.100/24",
        "eth0 lacks fd00::100/64",
        "eth0 has no default route through fd00::1",
        "eth0 has the undeclared address 192.168.0.57/24 from DHCP",
        "/etc/systemd/network/05-llmhost.network is missing",
    ]


DHCP = "network: {version: 2, ethernets: {eth0: {dhcp4: true}}}"
SITE = {"/etc/netplan/50-cloud-init.yaml": DHCP}


@pytest.mark.parametrize("state", [BEFORE, replace(BEFORE, netplan=SITE)])
def test_host_as_declared_has_no_drift(state: NetworkState) -> None:
    after = written(state)
    assert reasons(after) == []
    assert reasons(replace(after, addresses=after.addresses[:1])) == ["eth0 lacks fd00::100/64"]
    assert reasons(replace(after, routes=[]))
    assert len(reasons(replace(after, paths={}))) == 1
    other = LiveAddress("eth0", ip_interface("192.168.0.200/32"), dynamic=False)
    assert reasons(replace(after, addresses=[*after.addresses, other])) == []  # keepalived's, say


@pytest.mark.parametrize(
    ("changes", "interface", "sentence"),
    [
        ({"is_wsl": True}, "", "Windows sets the address of a WSL host"),
        ({"routes": []}, "", "set network_interface"),
        ({}, "eth7", "has no interface eth7: set network_interface to one of eth0, eth1"),
        ({}, "eth1", "neither netplan nor systemd-networkd manages eth1"),
        ({"managers": {"eth0": ["ifupdown"]}}, "", "eth0 is configured by ifupdown"),
        ({"managers": {"eth0": ["NetworkManager"]}}, "", "nmcli connection modify"),
    ],
)
def test_host_that_can_not_be_set_is_refused(
    changes: dict[str, Any], interface: str, sentence: str
) -> None:
    (told,) = addresses.refusals(replace(WANTED, interface=interface), replace(BEFORE, **changes))
    assert sentence in told


def test_host_that_can_be_set_is_not_refused() -> None:
    assert addresses.refusals(WANTED, BEFORE) == []
    ifupdown = replace(BEFORE, managers={"eth0": ["ifupdown"]}, netplan=SITE)
    assert addresses.refusals(WANTED, ifupdown) == []


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("192.168.0.57", ("192.168.0.100",)),
        ("192.168.0.100", ()),
        ("10.9.9.9", ()),  # another interface
        (None, ()),
    ],
)
def test_deploy_goes_on_at_the_new_address_only_if_its_own_goes_away(
    server: str | None, expected: tuple[str, ...]
) -> None:
    state = replace(BEFORE, server=ip_address(server) if server else None)
    assert addresses.contacts(WANTED, state) == expected
    assert bool(addresses.moving(WANTED, state)) == bool(expected)


def test_deploy_over_ipv6_goes_on_over_ipv6() -> None:
    there = LiveAddress("eth0", ip_interface("fd00::57/64"), dynamic=True)
    state = replace(BEFORE, addresses=[LEASED, there], server=ip_address("fd00::57"))
    assert addresses.contacts(WANTED, state) == ("fd00::100",)
    only4 = replace(WANTED, addresses=WANTED.addresses[:1])
    assert addresses.contacts(only4, state) == ("192.168.0.100",)


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("eth0: {dhcp4: true}", "eth0"),
        ("lan: {match: {macaddress: '02:00:00:00:00:01'}, dhcp4: true}", "lan"),
        ("lan: {match: {name: 'eth*'}}", "lan"),
        ("lan: {match: {macaddress: '02:00:00:00:00:99'}, set-name: eth0}", "lan"),
        ("eth0: {match: {macaddress: '02:00:00:00:00:99'}}", "eth0"),
        ("eth1: {dhcp4: true}", "eth0"),
        ("eth0:", "eth0"),
    ],
)
def test_definition_of_an_interface_is_found(body: str, key: str) -> None:
    texts = {"/etc/netplan/01.yaml": f"network:\n  version: 2\n  ethernets:\n    {body}\n"}
    found = netplan.find(texts, "eth0", "02:00:00:00:00:01")
    assert found == netplan.Definition("ethernets", key)


def test_our_file_sets_addresses_and_switches_dhcp_off() -> None:
    where = netplan.Definition("bridges", "br0")
    text = netplan.definition(where, WANTED.addresses, WANTED.gateways)
    body = yaml.safe_load(text)["network"]["bridges"]["br0"]
    assert body == {
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "addresses": ["192.168.0.100/24", "fd00::100/64"],
        "routes": [{"to": "0.0.0.0/0", "via": "192.168.0.1"}, {"to": "::/0", "via": "fd00::1"}],
    }


INSTALLED = """network:
  version: 2
  ethernets:
    eth0: {addresses: [192.168.0.57/24], gateway4: 192.168.0.1, mtu: 9000}
    eth1: {addresses: [10.0.0.1/8]}
"""


def test_addresses_of_another_file_are_taken_out_and_nothing_else() -> None:
    texts = {"/etc/netplan/00-installer-config.yaml": INSTALLED, **SITE}
    where = netplan.Definition("ethernets", "eth0")
    changed = netplan.trimmed(texts, where)
    assert [*changed] == ["/etc/netplan/00-installer-config.yaml"]
    kept = yaml.safe_load(changed["/etc/netplan/00-installer-config.yaml"])["network"]["ethernets"]
    assert kept == {"eth0": {"mtu": 9000}, "eth1": {"addresses": ["10.0.0.1/8"]}}
    assert netplan.trimmed({**texts, **changed}, where) == {}


def test_file_that_comes_after_ours_may_not_switch_dhcp_on() -> None:
    where = netplan.Definition("ethernets", "eth0")
    changed = netplan.trimmed({"/etc/netplan/99-site.yaml": DHCP}, where)
    kept = yaml.safe_load(changed["/etc/netplan/99-site.yaml"])
    assert kept["network"]["ethernets"] == {"eth0": {}}


def test_file_that_is_no_yaml_is_left_to_netplan() -> None:
    assert netplan.trimmed({"/etc/netplan/01.yaml": ":{"}, netplan.Definition("bonds", "b")) == {}


@pytest.mark.parametrize("manager", ["netplan", "networkd"])
def test_trial_is_a_shell_script(manager: str) -> None:
    text = render(
        "network/trial.sh.j2",
        stage="/run/x",
        backup="/var/x",
        unit="u",
        change_unit="c",
        interface="eth0",
        manager=manager,
        moves=True,
        paths=["/etc/netplan/99-llmhost.yaml"],
    )
    assert text.startswith("#!/bin/sh\n# Managed by llmhost")
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


FACT = r"""=== llmhost: network
connection 192.168.0.9 50000 192.168.0.57 22
kernel 5.15.167.4-microsoft-standard-WSL2
link eth0 02:00:00:00:00:01
link tun0
address 2: eth0    inet 192.168.0.57/24 metric 100 brd 192.168.0.255 scope global dynamic eth0\ x
address 2: eth0    inet6 fd00::57/64 scope global \       valid_lft forever
route default via 192.168.0.1 dev eth0 proto dhcp src 192.168.0.57
route default dev tun0 scope link
netplan /etc/netplan/01.yaml TEXT
netplan /etc/netplan/02.yaml
manager eth0 networkd
manager eth0 ifupdown"""


def test_fact_is_read() -> None:
    text = FACT.replace("TEXT", base64.b64encode(b"network: {}").decode())
    state = parse_state(text.splitlines())
    assert state.server == ip_address("192.168.0.57") and state.is_wsl
    assert state.macs == {"eth0": "02:00:00:00:00:01", "tun0": ""}
    assert [(str(each.address), each.dynamic) for each in state.addresses] == [
        ("192.168.0.57/24", True),
        ("fd00::57/64", False),
    ]
    assert state.routes == [("eth0", "192.168.0.1"), ("tun0", "")]
    assert state.netplan == {"/etc/netplan/01.yaml": "network: {}", "/etc/netplan/02.yaml": ""}
    assert state.managers == {"eth0": ["networkd", "ifupdown"]}
    assert state.has_ip and not parse_state([*text.splitlines(), "without-ip"]).has_ip


def run(command: str) -> list[str]:
    shell = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return shell.stdout.splitlines()


def test_facts_read_this_very_host() -> None:
    state = HostNetworking().process(run(HostNetworking().command()))
    assert "lo" in state.macs
    assert Hostname().process(run(Hostname().command())).now
    Resolver().process(run(Resolver().command()))


def test_name_is_read() -> None:
    assert Hostname().process(["now"]) == Names("", "now")
    assert Hostname().process(["now", "boot"]) == Names("boot", "now")


RESOLVED = resolver.ResolverState(target="/run/systemd/resolve/stub-resolv.conf", resolved=True)


def test_name_servers_go_where_the_host_looks() -> None:
    plain = resolver.file(["192.168.0.1", "fd00::1"], ["lan"], resolver.ResolverState())
    assert plain.path == "/etc/resolv.conf"
    assert "nameserver 192.168.0.1\nnameserver fd00::1\nsearch lan\n" in str(plain.content)
    told = resolver.file(["192.168.0.1", "fd00::1"], ["lan"], RESOLVED)
    assert isinstance(told, File) and told.path == resolver.DROP_IN
    assert "\nDNS=192.168.0.1 fd00::1\n" in str(told.content)
    assert "Domains=~. lan\n" in str(told.content)


def test_resolv_conf_of_another_program_is_refused() -> None:
    assert resolver.refusal(resolver.ResolverState()) == resolver.refusal(RESOLVED) == ""
    other = resolver.ResolverState(target="/run/resolvconf/resolv.conf", resolved=True)
    assert "/run/resolvconf/resolv.conf, which another program writes" in resolver.refusal(other)
    assert resolver.refusal(replace(RESOLVED, resolved=False))


@pytest.mark.parametrize(
    ("data", "same"),
    [
        ({}, True),
        ({"ssh_user": "root", "ssh_port": 22}, True),
        ({"ssh_port": 2222}, False),
        ({"ssh_config_file": "other"}, False),
    ],
)
def test_two_names_of_one_machine_are_refused(data: dict[str, Any], same: bool) -> None:
    host = SiteHost("one", read_settings(GOOD), contact="192.168.0.5")
    other = SiteHost("two", read_settings({}), contact="192.168.0.5", data=data)
    found = [problem.what for problem in site_problems(host, {"one": host, "two": other})]
    assert ("leads to 192.168.0.5, as that of two does" in found) is same
