"""What a check of a server carries: a stable id, what was seen, what was expected, what to do."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import testinfra

from llmhost.checks import catalogue
from llmhost.checks import test_gpu as gpu_checks
from llmhost.checks.command_log import guard
from llmhost.checks.conftest import server_of
from llmhost.checks.describe import gpu
from llmhost.checks.next_steps import NEXT_STEPS
from llmhost.inventory.reader import known_keys
from llmhost.verify.report import Check, Extent, LeftOut, MemoryUse, Server, Started, parse

KEY = "llmhost-" + "5" * 64

# A made-up component, tried on the machine that runs this test: it needs nothing to be there.
MODULE = """
import pytest
from llmhost.checks.applies import does_not_apply

@pytest.fixture(scope="module")
def kernel(host):
    return host.check_output("uname -s")

def test_kernel_is_the_right_one(kernel):
    assert kernel == "Linux"

def test_lists_are_equal(kernel):
    assert sorted(["b", "a"]) == ["a", "c"], "letters"

def test_word_is_there(host):
    assert "right" in "left"

def test_program_runs(host):
    host.check_output("cat /nowhere/at-all")

@pytest.mark.parametrize("colour", ["red", "blue"])
def test_colour_is_red(host, colour):
    assert colour == "red"

def test_gpu_is_there(host):
    pytest.skip("not checked: this server has no GPU")

@pytest.fixture
def declared():
    does_not_apply("no colour is declared")

def test_colour_is_as_declared(host, declared):
    assert False

def test_shade_is_as_declared(host):
    does_not_apply("no shade is declared")

def test_gpu_computes(host, request):
    request.node.user_properties.append(("proof", "proven on a double"))

def test_key_is_not_told(host):
    host.run("echo KEY")
    assert "KEY" == "another"
""".replace("KEY", KEY)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tests like tests/server, with its own component `colours`."""
    place = tmp_path_factory.mktemp("server")
    (place / "test_colours.py").write_text(MODULE)
    (place / "test_connection.py").write_text("def test_server_answers(host):\n    pass\n")
    (place / "conftest.py").write_text("from llmhost.checks.conftest import *\n")
    return place


def run(place: Path, site: Mapping[str, object], *arguments: str) -> tuple[str, list[object]]:
    """What pytest printed, and the records."""
    (place / "site.json").write_text(json.dumps(site))
    (place / "records").unlink(missing_ok=True)
    root = Path(__file__).parents[2]
    options = ["--site", "site.json", "--records", "records", "-p", "no:cacheprovider"]
    options += ["--junitxml", "junit.xml"]
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            os.devnull,
            "--rootdir",
            ".",
            *options,
            *arguments,
            ".",
        ],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(root), "LLMHOST_API_KEY": KEY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout, [parse(line) for line in (place / "records").read_text().splitlines()]


@pytest.fixture(scope="module")
def printed_and_records(site: Path) -> tuple[str, list[object]]:
    return run(site, {"@local": {}})


@pytest.fixture(scope="module")
def checks(printed_and_records: tuple[str, list[object]]) -> dict[str, Check]:
    found = [record for record in printed_and_records[1] if isinstance(record, Check)]
    return {check.sentence: check for check in found}


@pytest.mark.parametrize(
    ("sentence", "seen", "expected"),
    [
        ("lists are equal", "letters: ['a', 'b']", "['a', 'c']"),
        ("word is there", "left", "right is in it"),
        ("colour is red (blue)", "blue", "red"),
    ],
)
def test_failed_check_tells_what_was_seen_and_expected(
    checks: dict[str, Check], sentence: str, seen: str, expected: str
) -> None:
    check = checks[sentence]
    assert (check.outcome, check.seen, check.expected) == ("failed", seen, expected)


def test_failed_command_is_told_with_its_complaint(checks: dict[str, Check]) -> None:
    check = checks["program runs"]
    assert check.seen.startswith(
        "`cat /nowhere/at-all` ended with 1: cat: /nowhere/at-all: No such"
    )


def test_plain_output_of_pytest_tells_it_too(printed_and_records: tuple[str, list[object]]) -> None:
    printed = printed_and_records[0]
    assert "colours.lists-are-equal" in printed
    assert "seen:     letters: ['a', 'b']\nexpected: ['a', 'c']\n" in printed


@pytest.mark.usefixtures("printed_and_records")
def test_junit_report_has_the_ids(site: Path) -> None:
    assert (
        '<property name="check" value="colours.lists-are-equal"' in (site / "junit.xml").read_text()
    )


def test_cases_of_a_check_share_its_id(checks: dict[str, Check]) -> None:
    assert checks["colour is red (blue)"].id == checks["colour is red (red)"].id


def test_evidence_is_what_was_asked_through_fixtures_too(checks: dict[str, Check]) -> None:
    (asked,) = checks["kernel is the right one"].asked
    assert (asked.where, asked.command, asked.status) == ("@local", "uname -s", 0)


def test_worth_of_a_check_is_recorded(checks: dict[str, Check]) -> None:
    assert checks["GPU computes"].proof == "proven on a double"
    assert checks["kernel is the right one"].proof == "proven on the server"
    skipped = checks["GPU is there"]
    assert (skipped.outcome, skipped.reason) == ("not checked", "this server has no GPU")


def test_check_that_does_not_apply_is_in_no_report(
    site: Path, printed_and_records: tuple[str, list[object]], checks: dict[str, Check]
) -> None:
    reports = [printed_and_records[0], " ".join(checks), (site / "junit.xml").read_text()]
    assert all("declared" not in report for report in reports)


def test_keys_stay_out_of_the_records(site: Path, checks: dict[str, Check]) -> None:
    assert checks["key is not told"].seen == "[key]"
    assert KEY not in (site / "records").read_text()


def test_server_is_described_once(printed_and_records: tuple[str, list[object]]) -> None:
    records = printed_and_records[1]
    (server,) = [record for record in records if isinstance(record, Server)]
    assert server.answers and server.kernel == os.uname().release and server.processors
    count = Counter(map(type, records))
    assert records[0] == Extent(count[Started]) and count[Extent] == 1
    assert count[LeftOut] == count[Started] - count[Check] > 0


def test_memory_of_a_gpu_is_summed_up_by_container() -> None:
    def process(memory: int | None, container: str | None, command: str) -> dict[str, object]:
        return {"pid": 1, "memory": memory, "container": container, "command": command}

    held = [process(3, "c1", "a"), process(4, "c1", "b"), process(2, None, "Xorg")]
    held += [process(None, "c2", "d"), process(1, "gone", "e")]
    told = {"index": 1, "uuid": "GPU-1", "name": "RTX", "memory_total": 24, "memory_used": 12}
    told |= {"utilisation_percent": None, "processes": held}
    found = gpu(told, {"c1": "llmhost-vllm-1", "c2": "llmhost-tei-1"})
    assert found.shares == (MemoryUse("llmhost-vllm-1", 7), MemoryUse("Xorg", 2), MemoryUse("e", 1))
    assert found.parts[-1] == MemoryUse("other", 2)


def test_gpu_that_is_held_and_does_not_compute_is_no_proof() -> None:
    held = [{"pid": pid, "memory": 9, "container": c} for pid, c in ((1, "vllm"), (2, "other"))]
    told = {"index": 1, "processes": held, "work": [{"pid": 2, "percent": 50}]}
    holders = gpu_checks.holders_of(told, "vllm", "vllm")
    with pytest.raises(AssertionError, match="vllm answered, and its GPU 1 did no work"):
        gpu_checks.assert_work(told, "vllm", holders)
    gpu_checks.assert_work(told | {"work": [{"pid": 1, "percent": 3}]}, "vllm", holders)


def test_gpu_that_tells_nothing_is_shown_all_the_same() -> None:
    found = gpu({"index": 0, "name": None, "processes": None}, {})
    assert (found.label, found.memory_total, found.shares) == ("GPU", None, ())


FAR = {"ssh_hostname": "127.0.0.1", "ssh_port": 1}
"""Nothing listens on this port of the loopback."""


def test_servers_side_by_side_have_the_results_that_each_has_alone(site: Path) -> None:
    alone = _results(run(site, {"@local": {}})[1]) + _results(run(site, {"far": FAR})[1])
    printed, records = run(site, {"@local": {}, "far": FAR}, "-n", "2")
    assert _results(records) == alone
    assert "GPU: 0 proven on hardware, 1 proven on a double" in printed
    assert len({record.checks for record in records if isinstance(record, Extent)}) == 1


def _results(records: list[object]) -> Counter[tuple[str, ...]]:
    checks = [record for record in records if isinstance(record, Check)]
    return Counter((each.host, each.id, each.outcome, each.seen, each.proof) for each in checks)


@pytest.mark.parametrize(
    ("check", "server"),
    [
        ("test_stack.py::test_a[llm-01]", "llm-01"),
        ("test_firewall.py::test_b[ip6tables-llm]", "llm"),
        ("test_firewall.py::test_b[llm-01-ip6tables]", "llm-01"),
        ("test_stack.py::test_c[@local]", "@local"),
    ],
)
def test_server_of_a_check(check: str, server: str) -> None:
    assert server_of(check, ["llm", "llm-01", "01", "@local"]) == server


def test_server_that_is_silent_is_told_once(site: Path) -> None:
    _, records = run(site, {"far": FAR})
    (server,) = [record for record in records if isinstance(record, Server)]
    assert not server.answers and "127.0.0.1 port 1" in server.problem
    made = [record for record in records if isinstance(record, Check)]
    assert {each.id for each in made if each.outcome == "failed"} >= {"connection.server-answers"}
    reasons = {each.reason for each in made if each.component == "colours" and each.asked == ()}
    assert "the server does not answer" in reasons


SSH = """\
#!/bin/sh
while [ "${1#-}" != "$1" ]; do
    [ "$1" != -F ] || grep ControlPath "$2" >>"$SSH_LOG"
    shift 2
done
echo "asked for $1" >>"$SSH_LOG"
shift
exec sh -c "$*"
"""


@pytest.mark.parametrize(
    ("name", "data", "asked"),
    [
        ("fd00::5", {}, "fd00::5"),
        ("llm@lab", {"ssh_hostname": "gpu"}, "gpu"),
        ("Llm_1", {}, "Llm_1"),
    ],
)
def test_server_is_reached_as_by_pyinfra(
    name: str,
    data: dict[str, str],
    asked: str,
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever its name contains, and however long that of the operator is."""
    program, log = tmp_path / "bin/ssh", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("SSH_LOG", str(log))
    monkeypatch.setenv("LOGNAME", "firstname.lastname@department.example.com")
    _, records = run(site, {name: data})
    outcomes = {each.sentence: each.outcome for each in records if isinstance(each, Check)}
    assert outcomes["kernel is the right one"] == "passed"
    lines = log.read_text().splitlines()
    assert {line for line in lines if line.startswith("asked")} == {f"asked for {asked}"}
    assert all(len(line.split('"')[1]) + 17 < 104 for line in lines if "ControlPath" in line)


def test_ids_are_unique() -> None:
    ids = [each.id for each in catalogue.entries()]
    assert len(ids) > 70 and len(ids) == len(set(ids))


def test_every_check_is_documented_with_its_next_step() -> None:
    assert catalogue.PAGE.read_text() == catalogue.page(), "stale; run script/docs"


def test_each_check_has_a_next_step_of_its_own() -> None:
    known = {each.id for each in catalogue.entries()}
    assert NEXT_STEPS.keys() == known
    steps = [
        step
        for step in NEXT_STEPS.values()
        if step != "The container runs an older image. Deploy again."
    ]
    assert all(map(str.strip, steps)) and max(Counter(steps).values()) <= 2


def test_next_steps_name_options_that_exist() -> None:
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?: = [^`]*)?`", " ".join(NEXT_STEPS.values())))
    assert len(named) > 15
    others = {"context_tokens", "max_tokens", "ssh_user"}
    assert named - others <= set(known_keys())


def test_guard_of_a_file_is_read_at_once(tmp_path: Path) -> None:
    host, file = testinfra.get_host("local://"), tmp_path / "a file"
    file.touch()
    for mode, shown in ((0o640, "0640"), (0o4711, "4711"), (0o7, "0007")):
        file.chmod(mode)
        assert guard(host, str(file)) == f"{file.owner()}:{file.group()} {shown}"
    assert guard(host, f"{file}/missing") == "missing"
