"""What a run of many hosts ends with."""

import json
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import json, sys
from gevent import monkey
monkey.patch_all()
from llmhost.operations.summary import Failure, lines
failures = [Failure(*each) for each in json.loads(sys.argv[1])]
print(json.dumps(lines(failures, int(sys.argv[2]))))
"""


def summary(failures: list[tuple[str, str, list[str]]], hosts: int) -> list[str]:
    """In a process of its own: pyinfra's connectors patch threads."""
    arguments = [sys.executable, "-c", _PROGRAM, json.dumps(failures), str(hosts)]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    told: list[str] = json.loads(said)
    return told


def test_run_without_failures_says_nothing_more() -> None:
    assert summary([], 16) == []


def test_failed_hosts_are_named_with_place_and_reason() -> None:
    failures = [
        ("gpu-3", "Docker | Install Docker Engine", ["E: Unable to locate package"]),
        ("gpu-7", "", ["unreachable; see the top of the output for the reason"]),
    ]
    assert summary(failures, 16) == [
        "--> 2 of 16 hosts failed:",
        "    gpu-3: Docker | Install Docker Engine",
        "        E: Unable to locate package",
        "    gpu-7",
        "        unreachable; see the top of the output for the reason",
        "    To retry only these hosts, rerun the command with: --limit=gpu-3 --limit=gpu-7",
    ]


def test_single_host_needs_no_limit() -> None:
    told = summary([("llm", "Firewall", ["no"])], 1)
    assert told[-1] == "        no"


_DEPLOY = """
from pyinfra import state
from pyinfra.operations import server
from llmhost.operations.summary import summarise

summarise(state)
server.shell(name="Speak", commands=["echo said; printf 'note: a stream was cut off\\nmore' >&2"])
"""


def test_notes_of_a_script_are_printed_although_it_succeeds(tmp_path: Path) -> None:
    (tmp_path / "deploy.py").write_text(_DEPLOY)
    program = Path(sys.executable).with_name("pyinfra")
    ran = subprocess.run(
        [program, "@local", "deploy.py", "-y"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "a stream was cut off" in ran.stderr
    assert "said" not in ran.stderr and "more" not in ran.stderr
