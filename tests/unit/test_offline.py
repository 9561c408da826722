"""What the cut's scripts are, and what is read from the table they made."""

import json
import subprocess

import pytest

from llmhost.verify.offline import (
    TABLE,
    UNIT,
    attempts_script,
    cut_script,
    parse_attempts,
    recreate_script,
    request_script,
    restore_script,
)

SCRIPTS = {
    "cut": cut_script("192.168.0.9", 22, 60),
    "cut by IPv6": cut_script("fd00::9", 22, 60),
    "recreate": recreate_script("/opt/llmhost/compose.yaml", 900),
    "request": request_script(8081, "/v1/completions", {"prompt": "it's $HOME"}, 60),
    "attempts": attempts_script(),
    "restore": restore_script(),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_posix_shell(name: str) -> None:
    subprocess.run(["sh", "-n"], input=SCRIPTS[name], text=True, check=True)


def test_timer_is_set_before_the_network_is_cut() -> None:
    script = SCRIPTS["cut"]
    assert script.index("systemd-run") < script.index("-f -")
    assert f" {TABLE} {UNIT} 60 " in script


def test_controller_s_connection_stays() -> None:
    assert "tcp sport 22 ip daddr 192.168.0.9 accept" in SCRIPTS["cut"]
    assert "tcp sport 22 ip6 daddr fd00::9 accept" in SCRIPTS["cut by IPv6"]
    assert "sport" not in cut_script("", 22, 60)


def listed(**sets: list[list[object]]) -> str:
    """As `nft --json` prints a table (libnftables-json(5))."""
    entries: list[dict[str, object]] = [{"metainfo": {}}, {"table": {"name": TABLE}}]
    for name, elements in sets.items():
        concat = [{"concat": element} for element in elements]
        entries.append({"set": {"name": name, **({"elem": concat} if concat else {})}})
    return json.dumps({"nftables": entries})


def test_attempts_are_told_with_their_container() -> None:
    table = listed(
        containers4=[
            ["172.18.0.2", "203.0.113.7", "tcp", 443],
            ["172.18.0.3", "192.0.2.53", "udp", 53],
            ["172.18.0.9", "192.0.2.1", "tcp", 80],
        ],
        containers6=[["fd00::2", "2001:db8::1", "tcp", 443]],
        host4=[["192.0.2.5", "udp", 123]],
        host6=[],
    )
    names = "/llmhost-ollama-1|172.18.0.2 fd00::2 \n/llmhost-vllm-1|172.18.0.3  \n"
    assert [attempt.sentence for attempt in parse_attempts(names + table)] == [
        "llmhost-ollama-1 tried to reach 203.0.113.7:443 (tcp)",
        "llmhost-vllm-1 sent a DNS query to 192.0.2.53:53 (udp)",
        "a container that is gone (172.18.0.9) tried to reach 192.0.2.1:80 (tcp)",
        "llmhost-ollama-1 tried to reach [2001:db8::1]:443 (tcp)",
        "the host itself tried to reach 192.0.2.5:123 (udp)",
    ]


def test_quiet_host_has_no_attempts() -> None:
    assert parse_attempts(listed(containers4=[], containers6=[], host4=[], host6=[])) == ()


def test_missing_table_is_no_silence() -> None:
    with pytest.raises(ValueError):
        parse_attempts("/llmhost-ollama-1|172.18.0.2\n")
