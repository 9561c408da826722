"""Items of the benchmarks: each passes, is accepted with a reason, or fails."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmhost.resources import script_text
from llmhost.verify.hardening import Item, Verdict, count, items, script, verdicts

FINDINGS = Path(__file__).parent / "data/benchmark_findings.txt"
"""Every WARN of docker-bench-security and every suggestion of lynis on the demo's server."""

FUNCTIONS = script_text("hardening/functions.sh")


def _run(of: Sequence[Item], level: str = "baseline", path: str = "") -> list[Verdict]:
    environment = {"PATH": f"{path}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["sh", "-c", script(of)], env=environment, capture_output=True, text=True, check=True
    )
    return [*verdicts(of, ran.stdout, level)]


def _passes(check: str, path: str = "") -> bool:
    (verdict,) = _run([Item("x", "x", check)], path=path)
    return verdict.outcome == "passed"


@pytest.mark.parametrize("item", items(), ids=lambda item: item.id)
def test_item_can_be_judged(item: Item) -> None:
    assert item.check or item.accepted
    assert item.accepted or not item.only_if
    assert item.check or item.level != "cis"
    assert item.level in ("", "cis")
    for shell in (item.check, item.only_if):
        subprocess.run(["sh", "-n"], input=shell, text=True, check=True)


def test_items_are_listed_once() -> None:
    ids = [item.id for item in items()]
    assert len(ids) == len({*ids}) > 150


def test_every_finding_on_the_demo_is_an_item() -> None:
    findings = FINDINGS.read_text().splitlines()
    assert len(findings) > 60
    assert {*findings} <= {item.id for item in items()}


def test_no_item_asks_for_the_size_of_a_virtual_file() -> None:
    """It is 0 whatever is in the file, as that of /proc/version."""
    assert not _passes("[ -s /proc/version ]") and _passes("grep -q . /proc/version")
    tests = [item.id for item in items() if re.search(r"-s \S*/(proc|sys)/", item.check)]
    assert tests == []


def test_called_functions_exist() -> None:
    defined = {*re.findall(r"^(\w+)\(\)", FUNCTIONS, re.MULTILINE)}
    first = {re.sub(r"^! ", "", item.check).split(" ")[0] for item in items() if item.check}
    ours = {"every", "daemon", "guarded", "audited", "ssh_has", "kernel_has", "installed"}
    assert ours <= first and ours <= defined


@pytest.mark.parametrize(
    ("item", "level", "outcome", "reason"),
    [
        (Item("a", "a", "true"), "off", "passed", ""),
        (Item("a", "a", "false"), "baseline", "failed", ""),
        (Item("a", "a", "false", "why"), "baseline", "accepted", "why"),
        (Item("a", "a", "", "why"), "baseline", "accepted", "why"),
        (Item("a", "a", "false", "why", "true"), "cis", "accepted", "why"),
        (Item("a", "a", "false", "why", "false"), "baseline", "failed", ""),
        (Item("a", "a", "", "why", "false"), "baseline", "failed", ""),
        (Item("a", "a", "false", level="cis"), "cis", "failed", ""),
        (Item("a", "a", "true", level="cis"), "baseline", "passed", ""),
        (Item("a", "a", "exit 3"), "baseline", "failed", ""),
    ],
)
def test_verdict(item: Item, level: str, outcome: str, reason: str) -> None:
    after = Item("b", "b", "true")
    verdict, last = _run([item, after], level)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert last.outcome == "passed", "one check must not end the others"


@pytest.mark.parametrize("level", ["off", "baseline"])
def test_what_only_cis_sets_is_accepted_below_it(level: str) -> None:
    (verdict,) = _run([Item("a", "a", "false", level="cis")], level)
    assert (verdict.outcome, verdict.reason) == ("accepted", 'system_hardening = "cis" sets it')


def test_output_that_broke_off_is_no_result() -> None:
    with pytest.raises(ValueError, match="0 of 1"):
        [*verdicts([Item("a", "a", "true")], "", "cis")]


def test_verdicts_are_counted() -> None:
    found = _run([Item("a", "a", "true"), Item("b", "b", "false", "why"), Item("c", "c", "false")])
    assert count(found) == {"passed": 1, "accepted": 1, "failed": 1}


def test_containers_are_compared_one_by_one(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = ps ] && echo a b || printf "%s\\n" true false\n')
    docker.chmod(0o755)
    assert _passes("every X 'true|false'", str(tmp_path))
    assert not _passes("every X true", str(tmp_path))


@pytest.mark.parametrize(
    ("mode", "most", "passes"), [(0o640, "644", True), (0o664, "644", False), (0o777, "7777", True)]
)
def test_permissions_are_compared(tmp_path: Path, mode: int, most: str, passes: bool) -> None:
    file = tmp_path / "file"
    file.write_text("")
    file.chmod(mode)
    owner = f"{file.owner()}:{file.group()}"
    assert _passes(f"guarded '{owner}' {most} {file} {tmp_path}/absent") is passes
    assert not _passes(f"guarded nobody:nobody {most} {file}")


def test_paths_are_audited_by_their_whole_name(tmp_path: Path) -> None:
    auditctl = tmp_path / "auditctl"
    auditctl.write_text(f"#!/bin/sh\necho '-w {tmp_path} -p wa -k llmhost'\n")
    auditctl.chmod(0o755)
    assert _passes(f"audited {tmp_path}", str(tmp_path))
    assert not _passes("audited /tmp", str(tmp_path))
    assert _passes("audited /no/such/path", str(tmp_path))
