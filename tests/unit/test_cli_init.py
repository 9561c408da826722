"""`llmhost init`: what it asks, what it refuses, and what it leaves."""

import ast
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from llmhost.cli.init import init
from llmhost.gateway.keys import digest
from llmhost.inventory.profiles import PROFILES
from llmhost.inventory.reader import read_settings
from tests.doubles.hub import Hub, hub

LLMHOST = str(Path(sys.executable).with_name("llmhost"))
GIVEN = ["--host", "llm.site.example", "--allow", "10.0.0.0/8", "--profile", "embeddings", "--yes"]
NOBODY = "http://127.0.0.1:1"
FILES = {"inventory/site.py", "config.py", "deploy.py", ".gitignore", "README.md"}

Said = subprocess.CompletedProcess[str]

APP = typer.Typer()
APP.command()(init)


@pytest.fixture
def served() -> Iterator[Hub]:
    """A hub with the models of the profile `embeddings`."""
    with hub() as double:
        sources = [model["source"] for model in PROFILES["embeddings"].defaults["models"]]
        double.files = {source.removeprefix("hf:"): b"weights" for source in sources}
        double.large = set(double.files)
        yield double


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a site is made. Its server is a port of the loopback on which nothing listens."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host *\n  HostName 127.0.0.1\n  Port 1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def llmhost(cwd: Path, *arguments: str) -> Said:
    command = [LLMHOST, *arguments]
    return subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def refusal(*options: str) -> str:
    """The sentence that init ends with, in place of writing a site."""
    refused = CliRunner().invoke(APP, ["site", *options])
    assert refused.exit_code in (1, 2) and refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    return line


def files(directory: Path) -> set[str]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)) for path in found}


def inventory(directory: Path) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]:
    """Hosts and data of the one group, read without running the file."""
    *_, group = ast.parse((directory / "inventory/site.py").read_text()).body
    assert isinstance(group, ast.Assign)
    found: tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]] = ast.literal_eval(group.value)
    return found


def test_site_can_be_planned_up_to_the_connection(
    place: Path, served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    made = llmhost(place, "init", "site", *GIVEN, "--client", "app")
    assert made.returncode == 0, made.stderr
    assert files(place / "site") == {*FILES, "models.lock.json"}
    hosts, data = inventory(place / "site")
    assert hosts == [("llm.site.example", {"ssh_user": "root"})]
    assert data["api_clients"] == [{"name": "app", "sha256": digest(made.stdout.strip())}]
    monkeypatch.chdir(place / "site")
    assert read_settings(data).services == PROFILES["embeddings"].services
    planned = llmhost(place / "site", "plan", "inventory/site.py")
    assert planned.returncode == 1 and "mistake" not in planned.stderr
    assert "llm.site.example" in planned.stdout and "no SSH connection" in planned.stdout


def test_models_are_pinned_later_where_no_hub_answers(place: Path) -> None:
    made = llmhost(place, "init", "site", *GIVEN)
    assert made.returncode == 0 and "Traceback" not in made.stderr
    assert files(place / "site") == FILES
    assert "Models that are not pinned yet: hf:" in made.stderr
    assert "  llmhost model lock inventory/site.py\n  llmhost plan inventory/site.py" in made.stderr
    planned = llmhost(place / "site", "plan", "inventory/site.py")
    mistakes = [line for line in planned.stderr.splitlines() if "llm.site.example" in line]
    assert mistakes and all("model lock" in line for line in mistakes), planned.stderr


def test_secrets_of_services_are_created_once(place: Path) -> None:
    made = llmhost(place, "init", "site", *GIVEN, "--profile", "vllm")
    assert made.returncode == 0
    assert "To do before" not in made.stderr
    secrets = sorted((place / ".config" / "llmhost").iterdir())
    assert [each.name for each in secrets] == [
        "open_webui-admin-password",
        "open_webui-secret-key",
    ]
    assert {each.stat().st_mode & 0o777 for each in secrets} == {0o600}
    assert len({each.read_text() for each in secrets}) == 2
    assert all(str(each).replace(str(place), "~") in made.stderr for each in secrets)
    before = [each.read_text() for each in secrets]
    assert llmhost(place, "init", "other", *GIVEN, "--profile", "vllm").returncode == 0
    assert [each.read_text() for each in secrets] == before
    planned = llmhost(place / "site", "plan", "inventory/site.py")
    assert "open_webui" not in planned.stderr


def test_address_gets_a_name_and_a_user_without_root_gets_sudo(place: Path) -> None:
    made = llmhost(place, "init", "site", "--host", "10.1.2.3", "--user", "ann", "--yes")
    assert made.returncode == 0, made.stderr
    hosts, data = inventory(place / "site")
    login = {"ssh_hostname": "10.1.2.3", "ssh_user": "ann", "_sudo": True}
    assert hosts == [("llm-server", login)]
    assert data["gateway_sources"] == data["firewall_ssh_sources"] == ["10.1.2.0/24"]


@pytest.mark.parametrize("present", sorted(FILES))
def test_nothing_is_overwritten(place: Path, present: str) -> None:
    mine = place / "site" / present
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert refusal(*GIVEN) == f"error: site already contains {present}: choose another directory"
    assert files(place / "site") == {present} and mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--host", "not a host", "write a host name or an IP address"),
        ("--user", "a b", "is not a user name"),
        ("--profile", "olama", "did you mean ollama?"),
        ("--allow", "10.0.0.1/8", "write 10.0.0.0/8 for the whole network"),
        ("--time-zone", "Asia/Soul", "is 'Asia/Soul'; write a time zone"),
        ("--client", "Main App", "'Main App'"),
    ],
)
def test_mistaken_option_is_told_before_anything_is_written(
    place: Path, option: str, value: str, sentence: str
) -> None:
    line = refusal(*GIVEN, option, value)
    assert line.startswith(f"error: {option} ") and sentence in line
    assert not (place / "site").exists()


@pytest.mark.parametrize(
    ("options", "missing"), [([], "--host"), (["--host", "llm.site.example"], "--allow")]
)
def test_without_a_terminal_nothing_is_asked(place: Path, options: list[str], missing: str) -> None:
    assert refusal(*options).startswith(f"error: {missing} is required")
    assert not (place / "site").exists()


@pytest.mark.parametrize("directory", ["file", "file/site", "/proc/site"])
def test_directory_that_cannot_be_made_is_an_error(place: Path, directory: str) -> None:
    (place / "file").touch()
    made = llmhost(place, "init", directory, *GIVEN)
    assert made.returncode == 1
    assert made.stderr.splitlines()[-1].startswith("error: ") and made.stdout == ""


class Terminal:
    """A terminal with `llmhost init` on it."""

    def __init__(self, cwd: Path, *options: str) -> None:
        self.ours, theirs = pty.openpty()
        self.shown, self.seen = "", 0
        self.process = subprocess.Popen(
            [LLMHOST, "init", "site", *options],
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # controls it
        )
        os.close(theirs)

    def reply(self, question: str, text: str) -> None:
        """Wait for a question, and type this."""
        while question not in self.shown[self.seen :]:
            ready, _, _ = select.select([self.ours], [], [], 60)
            assert ready, self.shown
            self.shown += os.read(self.ours, 65536).decode()
        self.seen = self.shown.index(question, self.seen) + len(question)
        os.write(self.ours, text.encode())

    def end(self, key: str = "") -> int:
        """Read to the end, and type this key each second until it shows: one that is typed just
        while the terminal changes its mode is lost, and a second one interrupts the exit."""
        deadline = time.monotonic() + 60
        try:
            while time.monotonic() < deadline:
                if select.select([self.ours], [], [], 1)[0]:
                    self.shown += os.read(self.ours, 65536).decode()
                elif key and "Aborted" not in self.shown:
                    os.write(self.ours, key.encode())
        except OSError:  # so Linux says that the other end is closed
            os.close(self.ours)
        self.process.kill()  # only if it did not end in time
        return self.process.wait()


def test_terminal_asks_again_after_a_mistake(place: Path) -> None:
    terminal = Terminal(place)
    terminal.reply("Address or SSH host name of the server", "10.9.8.7\n")
    terminal.reply("[root]: ", "\n")
    terminal.reply("Profile [ollama]: ", "embedings\n")
    terminal.reply("did you mean embeddings?", "")
    terminal.reply("Profile [ollama]: ", "embeddings\n")
    terminal.reply("[10.9.8.0/24]: ", "10.9.0.0/16, fd00::/8\n")
    terminal.reply("Time zone", "Asia/Seoul\n")
    terminal.reply("[main-app]: ", "\n")
    assert terminal.end() == 0, terminal.shown
    hosts, data = inventory(place / "site")
    assert hosts == [("llm-server", {"ssh_hostname": "10.9.8.7", "ssh_user": "root"})]
    assert data["gateway_sources"] == ["10.9.0.0/16", "fd00::/8"]
    assert data["system_timezone"] == "Asia/Seoul" and data["stack_profile"] == "embeddings"
    (key,) = re.findall(r"llmhost-[0-9a-f]{64}", terminal.shown)
    assert data["api_clients"] == [{"name": "main-app", "sha256": digest(key)}]


@pytest.mark.parametrize("end", ["\x03", "\x04"], ids=["ctrl-c", "ctrl-d"])
def test_interrupted_questions_leave_nothing(place: Path, end: str) -> None:
    terminal = Terminal(place)
    terminal.reply("Address or SSH host name of the server", "10.9.8.7\n")
    terminal.reply("[root]: ", end)
    assert terminal.end(end) not in (0, -signal.SIGKILL)
    assert "Traceback" not in terminal.shown and "Aborted" in terminal.shown
    assert not (place / "site").exists()
