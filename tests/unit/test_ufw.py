"""The firewall's pure core: rules as ufw writes them, the way in that stays, and drift in words."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from llmhost.facts.ufw import parse_state
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.system.block import with_block
from llmhost.system.files import File, PathState
from llmhost.system.ufw import (
    BEGIN,
    END,
    USER_RULES,
    Connection,
    Rule,
    UfwState,
    drift,
    lifeline,
    openings,
    parse_connection,
)
from llmhost.template import render

EVERYONE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
SSH = Rule(22, "tcp", (ip_network("10.0.0.0/8"), ip_network("fd00::/8")), "SSH")
OPEN = Rule(8080, "tcp", EVERYONE)


def rendered(*rules: Rule, version: int = 4) -> str:
    chain = {4: "ufw", 6: "ufw6"}[version]
    return render("firewall/user.rules.j2", chain=chain, openings=openings(rules, version))


@pytest.mark.parametrize(
    ("rule", "version", "lines"),
    [
        # As written by `ufw allow …` of ufw 0.36.2.
        (
            SSH,
            4,
            "### tuple ### allow tcp 22 0.0.0.0/0 any 10.0.0.0/8 in comment=535348\n"
            "-A ufw-user-input -p tcp --dport 22 -s 10.0.0.0/8 -j ACCEPT\n",
        ),
        (
            OPEN,
            6,
            "### tuple ### allow tcp 8080 ::/0 any ::/0 in\n"
            "-A ufw6-user-input -p tcp --dport 8080 -j ACCEPT\n",
        ),
        (
            Rule(53, "udp", (ip_network("192.0.2.7"),)),
            4,
            "### tuple ### allow udp 53 0.0.0.0/0 any 192.0.2.7 in\n"
            "-A ufw-user-input -p udp --dport 53 -s 192.0.2.7 -j ACCEPT\n",
        ),
    ],
)
def test_rule_is_rendered_as_ufw_writes_it(rule: Rule, version: int, lines: str) -> None:
    assert f"\n\n{lines}\n### END RULES ###" in rendered(rule, version=version)


def test_rule_appears_only_in_the_file_of_its_ip_version() -> None:
    rule = Rule(22, "tcp", (ip_network("10.0.0.0/8"),))
    assert "--dport 22" in rendered(rule, version=4)
    assert "--dport" not in rendered(rule, version=6)


def test_rules_keep_the_order_they_are_declared_in() -> None:
    assert [opening.port for opening in openings([OPEN, SSH], 4)] == [8080, 22]


@pytest.mark.parametrize(
    ("text", "connection"),
    [
        ("192.0.2.7 50000 10.0.0.1 2222", Connection(ip_address("192.0.2.7"), 2222)),
        ("fe80::1%eth0 50000 fe80::2%eth0 22", Connection(ip_address("fe80::1"), 22)),
        ("UNKNOWN 65535 UNKNOWN 65535", None),
        ("", None),
    ],
)
def test_connection_is_read(text: str, connection: Connection | None) -> None:
    assert parse_connection(text) == connection


@pytest.mark.parametrize(
    ("client", "port", "added"),
    [
        ("10.1.2.3", 22, False),
        ("fd00::7", 22, False),
        ("192.0.2.7", 22, True),
        ("2001:db8::7", 22, True),
        ("10.1.2.3", 2222, True),
        ("192.0.2.7", 8080, False),
    ],
)
def test_connection_in_use_is_admitted_once(client: str, port: int, added: bool) -> None:
    extra = lifeline([SSH, OPEN], Connection(ip_address(client), port))
    assert [(rule.port, rule.protocol, rule.sources) for rule in extra] == (
        [(port, "tcp", (ip_network(client),))] if added else []
    )


def test_open_udp_port_does_not_admit_ssh() -> None:
    assert lifeline([Rule(22, "udp", EVERYONE)], Connection(ip_address("10.0.0.1"), 22))


def test_without_a_connection_no_way_in_is_added() -> None:
    assert lifeline([SSH], None) == ()


BLOCK = f"{BEGIN}\n*filter\nCOMMIT\n{END}\n"


@pytest.mark.parametrize("text", ["*filter\nCOMMIT\n", "*filter\nCOMMIT", "", "a\n\n\n"])
def test_block_is_put_in_once_and_leaves_the_rest(text: str) -> None:
    once = with_block(text, BLOCK)
    assert once.startswith(text) and once.endswith(BLOCK)
    assert with_block(once, BLOCK) == once


def test_block_is_replaced_where_text_was_added_behind_it() -> None:
    found = with_block("before\n", BLOCK.replace("*filter", "old")) + "after\n"
    assert with_block(found, BLOCK) == f"before\nafter\n\n{BLOCK}"


TEXT = rendered(SSH, OPEN)
FILE = File(USER_RULES[4], TEXT, mode="0640")
STATE = PathState("file", "root", "root", "0640", 0.0, FILE.sha256)
GOOD = UfwState(
    paths={FILE.path: STATE},
    texts={USER_RULES[4]: TEXT, USER_RULES[6]: rendered(SSH, OPEN, version=6)},
    starts_at_boot=True,
    recorded=True,
)


def test_host_as_declared_has_no_drift() -> None:
    assert drift([FILE], [SSH, OPEN], GOOD) == []


FOREIGN = rendered(SSH, OPEN, Rule(9001, "tcp", (ip_network("192.0.2.0/24"),)))
REORDERED = rendered(OPEN, SSH)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"starts_at_boot": False}, "ufw does not start at boot"),
        ({"recorded": False}, "llmhost has not yet loaded rules on this host"),
        ({"edited": True}, "files of ufw were edited after they were loaded"),
        ({"live": ["ip < -A INPUT -j ufw-x"]}, "'-A INPUT -j ufw-x' is no longer loaded"),
        (
            {"live": ["ip6 > -A INPUT -j ACCEPT"]},
            "'-A INPUT -j ACCEPT' is loaded, but ufw did not add it",
        ),
        ({"paths": {}}, "/etc/ufw/user.rules is missing"),
        ({"paths": {FILE.path: replace(STATE, mode="0666")}}, "has mode 0666"),
        ({"texts": {**GOOD.texts, FILE.path: ""}}, "port 22/tcp is not open to 10.0.0.0/8"),
        (
            {"texts": {**GOOD.texts, FILE.path: FOREIGN}},
            "the rule 'allow 9001/tcp from 192.0.2.0/24' is not declared",
        ),
        ({"texts": {**GOOD.texts, FILE.path: REORDERED}}, "the rules are in another order"),
    ],
)
def test_drift_is_told_in_a_sentence(change: dict[str, Any], sentence: str) -> None:
    told = drift([FILE], [SSH, OPEN], replace(GOOD, **change))
    assert any(sentence in one for one in told), told


def test_many_lost_rules_are_counted_not_listed() -> None:
    lost = [f"ip < -A ufw-{number}" for number in range(50)]
    told = drift([FILE], [SSH, OPEN], replace(GOOD, live=lost))
    assert len(told) == 4
    assert told[-1] == "47 more loaded rules are not as ufw loaded them"


OUTPUT = """regular file|root|root|640|1.5|/etc/ufw/user.rules
0123  /etc/ufw/user.rules
=== llmhost: /etc/ufw/user.rules
first

last

=== llmhost: /etc/ufw/after.rules

=== llmhost: facts
connection 192.0.2.7 50000 10.0.0.1 22
starts-at-boot yes
recorded yes
uplink eth0
uplink br-lan
=== llmhost: live
ip > -A INPUT -j ACCEPT""".splitlines()


def test_state_is_read_from_lines() -> None:
    state = parse_state(OUTPUT)
    assert state.paths["/etc/ufw/user.rules"].sha256 == "0123"
    assert state.texts == {"/etc/ufw/user.rules": "first\n\nlast\n", "/etc/ufw/after.rules": ""}
    assert state.connection == Connection(ip_address("192.0.2.7"), 22)
    assert (state.starts_at_boot, state.recorded, state.edited) == (True, True, False)
    assert state.live == ["ip > -A INPUT -j ACCEPT"]
    assert state.outside_bridges == ["br-lan"]


def block(*, uplinks: list[str], rules: list[Rule]) -> list[str]:
    values = {"begin": BEGIN, "end": END, "uplinks": uplinks, "openings": openings(rules, 4)}
    return render("firewall/after.rules.j2", **values).splitlines()


def test_uplink_named_like_a_container_network_is_shut_out_first() -> None:
    lines = block(uplinks=["br-lan"], rules=[])
    drop = lines.index("-A DOCKER-USER -i br-lan ! -o br-lan -j DROP")
    assert drop < lines.index("-A DOCKER-USER -i br-+ -j RETURN")


def test_declared_port_is_open_when_a_container_publishes_it() -> None:
    lines = block(uplinks=[], rules=[SSH])
    port = "-m conntrack --ctstate DNAT --ctorigdstport 22"
    opened = lines.index(f"-A DOCKER-USER -p tcp -s 10.0.0.0/8 {port} -j RETURN")
    assert opened < lines.index("-A DOCKER-USER -m conntrack --ctstate DNAT -j DROP")


def mistakes(data: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(data)
    return "\n".join(problem.sentence("host") for problem in caught.value.problems)


RULE = {"port": 9001, "sources": ["10.0.0.0/8"]}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"firewall_ssh_sources": []}, "firewall_ssh_sources: is an empty list"),
        ({"firewall_ssh_sources": ["10.0.0.5/8"]}, "10.0.0.0/8 for the whole network, or 10.0.0.5"),
        ({"firewall_ssh_sources": ["1.2.3.4/0"]}, "0.0.0.0/0 for the whole network, or 1.2.3.4"),
        ({"firewall_ssh_sources": ["lan"]}, "[0]: is text of 3 characters; write a network"),
        ({"firewall_ssh_sources": [5]}, "firewall_ssh_sources[0]: is 5; write a network"),
        ({"firewall_ssh_sources": ["fe80::1%eth0"]}, "names an interface after '%'"),
        (
            {"firewall_ssh_sources": ["10.0.0.0/8", "10.1.0.0/16"]},
            "holds 10.1.0.0/16, which 10.0.0.0/8 covers already",
        ),
        ({"firewall_ssh_sources": ["::/0", "::/0"]}, "holds ::/0 twice"),
        ({"firewall_rules": [{"port": 9001}]}, "firewall_rules[0].sources: is missing"),
        ({"firewall_rules": [{**RULE, "port": 0}]}, "firewall_rules[0].port"),
        ({"firewall_rules": [{**RULE, "protocol": "icmp"}]}, "firewall_rules[0].protocol"),
        ({"firewall_rules": [{**RULE, "comment": "a\nb"}]}, "firewall_rules[0].comment"),
        ({"firewall_rules": [RULE, RULE]}, "opens port 9001/tcp 2 times"),
        ({"firewall_rules": [{**RULE, "port": 22}]}, "firewall_rules[0] are both 22"),
        ({"firewall_rules": [{**RULE, "port": 8080}]}, "firewall_rules[0] are both 8080"),
    ],
)
def test_mistake_is_told(data: dict[str, Any], sentence: str) -> None:
    assert sentence in mistakes(data), mistakes(data)


def test_address_is_the_network_of_one() -> None:
    settings = read_settings({"firewall_ssh_sources": ["192.0.2.7", "2001:db8::7"]})
    assert settings.firewall.ssh_sources == (
        ip_network("192.0.2.7/32"),
        ip_network("2001:db8::7/128"),
    )


def test_port_may_be_open_for_both_protocols() -> None:
    rules = [RULE, {**RULE, "protocol": "udp"}]
    assert len(read_settings({"firewall_rules": rules}).firewall.rules) == 2


ONE = {"name": "one", "sha256": "1" * 64, "sources": ["10.1.0.0/16", "fd00:1::/32"]}
TWO = {"name": "two", "sha256": "2" * 64, "sources": ["10.0.0.0/15", "10.2.0.0/16"]}
ANY = {"name": "any", "sha256": "3" * 64}


@pytest.mark.parametrize(
    ("clients", "sources", "admitted"),
    [
        ([], ["10.0.0.0/8"], ["10.0.0.0/8"]),
        ([ONE, ANY], ["10.0.0.0/8", "::/0"], ["10.0.0.0/8", "::/0"]),
        ([ONE], ["0.0.0.0/0", "::/0"], ["10.1.0.0/16", "fd00:1::/32"]),
        ([ONE, TWO], ["10.0.0.0/8", "::/0"], ["10.0.0.0/15", "10.2.0.0/16", "fd00:1::/32"]),
        ([ONE], ["10.1.7.0/24", "fd00::/8"], ["10.1.7.0/24", "fd00:1::/32"]),
    ],
)
def test_gateway_is_open_to_the_networks_of_its_clients(
    clients: list[dict[str, object]], sources: list[str], admitted: list[str]
) -> None:
    settings = read_settings({"api_clients": clients, "gateway_sources": sources})
    assert [str(network) for network in settings.admitted_to_gateway] == admitted
