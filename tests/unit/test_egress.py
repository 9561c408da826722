"""Limits on where containers may connect to."""

from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from llmhost.facts.nftables import NftTable
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.profiles import PROFILES, with_profile
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from llmhost.stack.egress import DROP_IN, RULES, egress_files
from llmhost.stack.project import compose_project
from llmhost.system.files import Absent, File
from llmhost.system.nftables import plan
from llmhost.system.overrides import OWN

DIGEST = "@sha256:" + "ab" * 32
UI = {
    "services": ["open_webui"],
    "open_webui_secret_key": "env:LLMHOST_TEST_SECRET",
    "open_webui_admin_password": "env:LLMHOST_TEST_SECRET",
    "open_webui_engine_urls": ["http://192.0.2.7:11434/v1", "https://llm2.lan/v1"],
}
NAMED = {"networks": ["192.0.2.8"], "port": 443, "name": "llm2.lan"}


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMHOST_TEST_SECRET", "x" * 40)


def _settings(*allow: dict[str, Any], **options: Any) -> Settings:
    data = {"stack_egress": "deny", "stack_egress_allow": allow, **UI, **options}
    return read_settings(data | {"api_clients": [{"name": "test", "sha256": "cd" * 32}]})


def _rules(settings: Settings) -> list[str]:
    files = {each.path: each for each in egress_files(settings) if isinstance(each, File)}
    return [line.strip() for line in str(files[RULES].content).splitlines()]


def test_rules_admit_declared_networks_and_addresses_in_urls() -> None:
    both = {"networks": ["10.1.0.0/16", "fd00::/8"], "port": 514, "protocol": "udp"}
    accepted = [line for line in _rules(_settings(NAMED, both)) if " dport " in line]
    assert accepted == [
        "ip daddr 192.0.2.8/32 tcp dport 443 accept",
        "ip daddr 10.1.0.0/16 udp dport 514 accept",
        "ip6 daddr fd00::/8 udp dport 514 accept",
        "ip daddr 192.0.2.7/32 tcp dport 11434 accept",
    ]


def test_rules_and_network_name_the_same_bridge() -> None:
    settings = _settings(NAMED, stack_project="a-project-with-a-long-name")
    project = compose_project(settings)
    options = yaml.safe_load(project.root)["networks"]["default"]["driver_opts"]
    assert options == {"com.docker.network.bridge.name": project.bridge}
    assert len(project.bridge) <= 15
    assert sum(f'iifname "{project.bridge}"' in line for line in _rules(settings)) == 3


def test_containers_ask_no_name_server_outside() -> None:
    service = yaml.safe_load(compose_project(_settings(NAMED)).services["open_webui"])
    service = service["services"]["open_webui"]
    assert service["dns"] == ["127.0.0.1"]
    assert service["extra_hosts"] == ["llm2.lan=192.0.2.8"]


def test_docker_loads_the_rules_before_it_starts() -> None:
    files = {each.path: each for each in egress_files(_settings(NAMED)) if isinstance(each, File)}
    assert f"ExecStartPre=/usr/sbin/nft -f {RULES}" in str(files[DROP_IN].content)
    assert DROP_IN in OWN, "or the deploy would remove it again"


def test_nothing_is_limited_unless_it_is_declared() -> None:
    settings = _settings(stack_egress="allow")
    assert egress_files(settings) == (Absent(RULES), Absent(DROP_IN))
    project = compose_project(settings)
    assert "networks" not in yaml.safe_load(project.root) and not project.bridge
    assert "dns" not in yaml.safe_load(project.services["open_webui"])["services"]["open_webui"]


def test_every_profile_denies_and_an_inventory_may_allow() -> None:
    for name in PROFILES:
        assert with_profile({"stack_profile": name})["stack_egress"] == "deny"
        allowed = with_profile({"stack_profile": name, "stack_egress": "allow"})
        assert allowed["stack_egress"] == "allow"
    assert read_settings({}).stack.egress == "allow"


def _problems(*allow: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(SettingsError) as refused:
        _settings(*allow, **options)
    return [(problem.key, problem.what) for problem in refused.value.problems]


@pytest.mark.parametrize("allow", [[], [NAMED | {"port": 80}], [NAMED | {"name": "llm3.lan"}]])
def test_name_that_containers_could_not_look_up_is_refused(allow: Sequence[dict[str, Any]]) -> None:
    what = "lacks https://llm2.lan/v1, to which 'open_webui' connects"
    assert _problems(*allow) == [("stack_egress_allow", what)]


def test_destinations_without_an_effect_are_refused() -> None:
    what = 'has no effect, because stack_egress is "allow"'
    assert _problems(NAMED, stack_egress="allow") == [("stack_egress_allow", what)]


def test_name_of_several_addresses_is_refused() -> None:
    (problem,) = _problems(NAMED | {"networks": ["192.0.2.0/24"]})
    assert problem[1] == "gives several addresses the name llm2.lan"


RULES_FILE, NO_FILE = File("/t.nft", "table inet t {}\n"), Absent("/t.nft")
PRESENT = f"regular file|root|root|644|0.0|/t.nft\n{RULES_FILE.sha256}  /t.nft\n"
DIFFERENCES: dict[str, tuple[File | Absent, str]] = {
    "/t.nft is missing": (RULES_FILE, "table loaded\ntable < counter"),
    "/t.nft must not exist": (NO_FILE, PRESENT),
    "the nftables table t is not loaded": (RULES_FILE, PRESENT),
    "the nftables table t is loaded": (NO_FILE, "table loaded"),
    "'counter' is no longer loaded": (RULES_FILE, f"{PRESENT}table loaded\ntable < counter"),
    "'accept' was added to the nftables table t": (
        RULES_FILE,
        f"{PRESENT}table loaded\ntable > accept",
    ),
}


def _reasons(file: File | Absent, output: str) -> tuple[str, ...]:
    return plan("t", [file], "/t.nft", NftTable().process(output.splitlines())).reasons


@pytest.mark.parametrize("sentence", DIFFERENCES)
def test_difference_of_a_table_is_told(sentence: str) -> None:
    assert _reasons(*DIFFERENCES[sentence]) == (sentence,)


def test_table_as_declared_is_left_alone() -> None:
    assert _reasons(RULES_FILE, f"{PRESENT}table loaded") == ()
    assert _reasons(NO_FILE, "") == ()
