"""`llmhost logs`: the script that reads a log, and what is printed of it."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from llmhost.resources import script
from llmhost.status.logs import HEADER, log_command, request, row, seconds_of, without_secrets
from llmhost.status.logs import Selection as Select
from tests.programs import running

LLMHOST = Path(sys.executable).with_name("llmhost")
KEY = "llmhost-" + "ab" * 32


def line(ago: float = 0, **more: object) -> str:
    end = datetime.now().astimezone() - timedelta(seconds=ago)
    request = {"time": end.isoformat(timespec="seconds"), "id": "7", "client": "app"}
    request |= {"address": "10.0.0.9", "method": "POST", "route": "/v1/completions"}
    rest = {"status": 200, "refusal": "", "bytes_in": 300, "bytes_out": 900}
    rest |= {"first_byte_seconds": "0.100", "seconds": 1.5, "complete": "OK"}
    return json.dumps({**request, **rest, **more}, separators=(",", ":"))


def read(log: Path, lines: str = "all", seconds: str = "", pattern: str = "") -> list[str]:
    command = script("logs/read.sh", "gateway", str(log), lines, seconds, pattern, "")
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.json"
    every = [line(900, client="old"), line(30, client="new"), line(1, status=401, client="")]
    path.write_text("".join(f"{each}\n" for each in every))
    return path


def test_lines_age_and_pattern_select(log: Path) -> None:
    every = log.read_text().splitlines()
    assert read(log) == every
    assert read(log, lines="1") == every[2:]
    assert read(log, lines="0") == []
    assert read(log, seconds="60") == every[1:]
    assert read(log, pattern='"status":4|"client":"old"') == [every[0], every[2]]
    assert read(log, pattern="nothing") == []
    assert read(log, pattern="-v") == []


def test_following_prints_new_lines_and_ends_with_its_input(log: Path) -> None:
    command = script("logs/read.sh", "gateway", str(log), "1", "60", "status", "yes")
    process = subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    try:
        assert '"status":401' in process.stdout.readline()
        with log.open("a") as file:
            file.write(line(0, client="later") + "\n")
        assert '"client":"later"' in process.stdout.readline()
        log.rename(log.with_suffix(".1"))  # as logrotate does
        log.write_text(line(0, client="rotated") + "\n")
        assert '"client":"rotated"' in process.stdout.readline()
        process.stdin.close()
        assert process.wait(10) == 0
        assert process.stdout.read() == ""
        assert _members(str(log)) == []
    finally:
        process.kill()


def _members(word: str) -> list[str]:
    """Processes that still have the log in their command line; they may take a moment to end."""
    for _ in range(100):
        found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        left = [each for each in found.splitlines() if each.startswith("tail") and word in each]
        if not left:
            return []
        time.sleep(0.05)
    return left


def test_container_s_log_is_docker_s(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$2" != gone ] || { echo no such container >&2; exit 1; }\n'
        'echo "$*"; echo late >&2\n'
    )
    docker.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def ran(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = script("logs/read.sh", "container", *arguments)
        return subprocess.run(["sh", "-c", command], env=path, capture_output=True, text=True)

    assert ran("a-b-1", "all", "60", "", "").stdout == "logs --tail all --since 60s a-b-1\nlate\n"
    assert ran("a-b-1", "5", "", "late", "").stdout == "late\n"
    gone = ran("gone", "5", "", "", "")
    assert (gone.stdout, gone.stderr) == ("", "no such container\n")


def test_command_names_the_log_of_the_service() -> None:
    assert " container llmhost-redis-1 all '' '' ''" in log_command("llmhost", "redis", Select())
    gateway = log_command("llmhost", "gateway", Select(5, 60, "a b", follow=True))
    assert gateway.endswith(" gateway /var/log/nginx/gateway.json 5 60 'a b' yes")


@pytest.mark.parametrize(
    ("age", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("3d", 259200)]
)
def test_age_is_a_number_and_a_unit(age: str, seconds: int) -> None:
    assert seconds_of(age) == seconds


@pytest.mark.parametrize("age", ["", "10", "1w", "-1s", "1h30m", "$(reboot)s"])
def test_other_ages_are_refused(age: str) -> None:
    with pytest.raises(ValueError):
        seconds_of(age)


def test_request_is_a_row_below_its_header() -> None:
    found = request(line(status=403, refusal="scope_denied", first_byte_seconds="0.1, 0.250"))
    assert found
    printed = row(found)
    for title, value in (
        ("client", "app"),
        ("request", "POST /v1"),
        ("status", "403 scope_denied"),
    ):
        assert printed[HEADER.index(title) :].startswith(value)
    assert "0.250 s" in printed and len(printed) == len(HEADER)
    stranger = request(line(client="", route="", first_byte_seconds="-"))
    assert stranger and row(stranger).count("–") == 3
    assert request("not JSON") is None and request("[]") is None


@pytest.mark.parametrize(
    "text",
    [
        f"got {KEY}",
        f"Authorization: Bearer {KEY}x",
        "authorization: bearer secret",
        "X-API-Key: secret",
        "Received request cmpl-1: prompt: 'a secret, it is', params: SamplingParams(n=1)",
        'Received request cmpl-1: prompt: "it\'s a secret", params: SamplingParams(n=1)',
    ],
)
def test_keys_and_prompts_are_hidden(text: str) -> None:
    hidden = without_secrets(text)
    assert "secret" not in hidden and KEY not in hidden and "[hidden]" in hidden
    assert without_secrets("slot release: n_tokens = 45") == "slot release: n_tokens = 45"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["logs", "chroma", "{}"], "error: no host has a log of chroma; there are: gateway, redis"),
        (["logs", "redis", "{}", "--since", "soon"], "error: --since soon is not an age"),
        (["logs", "redis", "{}"], "error: far: no SSH connection"),
        (["exec", "chroma", "{}", "--", "ls"], "error: no host declares the service chroma"),
        (["exec", "redis", "{}", "--", "ls"], "ssh: connect to host 127.0.0.1 port 1"),
        (["ssh", "{}", "far"], "ssh: connect to host 127.0.0.1 port 1"),
        (["ssh", "{}", "near"], "error: no host or group matches near"),
    ],
)
def test_mistake_is_one_sentence(unreachable: Path, words: list[str], sentence: str) -> None:
    command = [str(LLMHOST), *(word.replace("{}", str(unreachable)) for word in words)]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    # Without a terminal, OpenSSH first prints that it allocates none.
    assert ran.stderr.splitlines()[-1].startswith(sentence), ran.stderr
    status = 255 if sentence.startswith("ssh") else 1
    assert (ran.returncode, ran.stdout) == (status, "")


def test_following_ends_without_an_error_when_it_is_interrupted(tmp_path: Path) -> None:
    clients = [{"name": "app", "sha256": "cd" * 32}]
    site = tmp_path / "site.py"
    site.write_text(
        f"hosts = [('@local', {{'services': ['redis'], 'api_clients': {clients!r}}})]\n"
    )
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\n[ $1 = inspect ] || { echo ready; exec sleep 60; }\n")
    docker.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with running(
        [str(LLMHOST), "logs", "redis", str(site), "-f"],
        env=os.environ | path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert (process.wait(30), process.stderr.read()) == (0, "")
