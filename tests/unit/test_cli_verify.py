"""What `llmhost verify` writes, and what a terminal shows meanwhile. No server is needed: the one
of the inventory does not answer, which is a result too."""

import hashlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

LLMHOST = Path(sys.executable).with_name("llmhost")


def on_a_terminal(*command: str | Path) -> str:
    """All that a terminal is shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # so Linux tells that the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait() == 1
    return shown.decode()


def test_page_tells_of_a_server_that_does_not_answer(unreachable: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command: list[str | Path] = [
        LLMHOST,
        "verify",
        unreachable,
        "--html",
        page,
        "--",
        "-k",
        "connection",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout + result.stderr
    text = page.read_text()
    assert "The server is not as the inventory declares</h1>" in text
    assert "does not answer" in text and "port 1: Connection refused" in text
    assert list(tmp_path.glob(".*")) == []


def test_page_that_can_not_be_written_is_told_before_anything_is_tried(unreachable: Path) -> None:
    command: list[str | Path] = [LLMHOST, "verify", unreachable, "--html", "/nowhere/page.html"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "the directory /nowhere does not exist" in result.stderr and result.stdout == ""


def test_terminal_shows_the_check_that_is_made_and_then_the_results(unreachable: Path) -> None:
    shown = on_a_terminal(LLMHOST, "verify", unreachable, "--", "-k", "connection")
    assert "far" in shown and "0:00:0" in shown
    assert "does not answer" in shown
    assert shown.index("0:00:0") < shown.index("ERRORS")


def test_terminal_shows_how_far_a_plan_has_come(unreachable: Path) -> None:
    shown = on_a_terminal(LLMHOST, "plan", unreachable)
    progress = re.search(r"far  (connecting|failed)\s+\d+ s", shown)
    assert progress and progress.end() < shown.index("1 host: 0 to change, 1 failed")


def test_no_progress_is_shown_where_nobody_looks(unreachable: Path) -> None:
    result = subprocess.run([LLMHOST, "plan", unreachable], capture_output=True, text=True)
    assert "\x1b" not in result.stdout + result.stderr
    assert not re.search(r"\d+ s\b", result.stdout + result.stderr)


def test_operators_own_pytest_configuration_does_not_count(
    unreachable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('the operator tests something')\n")
    (tmp_path / "json.py").write_text("raise RuntimeError('not that json')\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_own.py").write_text("def test_own() -> None:\n    assert False\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--another-option")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    command: list[str | Path] = [LLMHOST, "verify", unreachable, "--", "-k", "connection or own"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert "does not answer" in result.stdout, result.stdout + result.stderr
    assert "RuntimeError" not in result.stdout and "test_own" not in result.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--offline", "--hardening"], "--offline and --hardening are two runs: give one of them"),
        (["--offline", "--junit", "a.xml"], "--offline does not use --junit: remove it, or"),
        (["--hardening", "--html", "a.html", "--", "-x"], "does not use --html, -x: remove it"),
        (["--junit", f"{__file__}/a.xml"], "test_cli_verify.py cannot be written to"),
    ],
)
def test_what_a_run_would_ignore_is_refused(
    unreachable: Path, options: list[str], sentence: str
) -> None:
    command: list[str | Path] = [LLMHOST, "verify", unreachable, *options]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and result.stdout == ""
    assert sentence in result.stderr and len(result.stderr.splitlines()) == 1


def test_unreachable_host_hides_no_other_in_the_check_of_hardening(tmp_path: Path) -> None:
    result = of_two(tmp_path, "--hardening")
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["a", "b"]


def test_network_of_a_host_that_does_not_answer_is_not_called_restored(tmp_path: Path) -> None:
    result = of_two(tmp_path, "--offline")
    assert "is restored" not in result.stdout
    assert result.stdout.count("a timer on the host restores it within 1200 s") == 2


def test_host_without_services_is_told_before_the_first_network_is_cut(tmp_path: Path) -> None:
    result = of_two(tmp_path, "--offline", gateway_upstreams=UPSTREAMS)
    assert result.stdout == ""
    assert "b: the inventory declares no service" in result.stderr


UPSTREAMS = [{"name": "a", "address": "10.0.0.1"}]


def of_two(directory: Path, option: str, **second: object) -> "subprocess.CompletedProcess[str]":
    """`llmhost verify` of two hosts that do not answer; with options of its own, the second one is
    the gateway of the first."""
    key = "llmhost-" + "5" * 64
    (directory / "key").write_text(key)
    data: dict[str, object] = {"ssh_hostname": "127.0.0.1", "ssh_port": 1}
    data["api_clients"] = [{"name": "app", "sha256": hashlib.sha256(key.encode()).hexdigest()}]
    gate = {
        **data,
        "gateway_upstream_services": ["redis"],
        "gateway_upstream_key": f"file:{directory}/key",
        "gateway_upstream_name": "a",
        **second,
    }
    one = {**data, "services": ["redis"]}
    hosts = [("a", one), ("b", gate if second else {**one, "ssh_port": 2})]
    (directory / "site.py").write_text(f"hosts = {hosts!r}\n")
    command: list[str | Path] = [LLMHOST, "verify", directory / "site.py", option]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    return result
