"""The end of a run of pyinfra itself is announced, on this machine and without a server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import running
from tests.unit.test_announce import Inbox, web_server

pytestmark = pytest.mark.machines
PYINFRA = Path(sys.executable).with_name("pyinfra")
# What deploy.py does around its tasks, with one task that writes files.
DEPLOY = """\
import time
from pathlib import Path
from pyinfra import host, state
from pyinfra.operations import server
from llmhost.operations import files
from llmhost.operations.component import component
from llmhost.operations.inventory import site_host
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.operations.summary import summarise
from llmhost.system.files import File
from llmhost.tasks.lock import lock_host

patch_run(state, host)
summarise(state)
here = site_host(host)
lock_host(here.settings)
place = here.settings.receipt.directory


@component("Sample")
def write(path):
    files.present(File(path, b"text"), name="Write a file")


write(f"{place}/first")
if Path(place, "slow").exists():
    server.shell(["sleep 60"], name="Wait")
if Path(place, "broken").exists():
    write("/proc/no/such/file")
"""
FIRST, BROKEN = "Sample | Write a file", "broken"


APART = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]


class Site:
    """A host that is this machine, another one that does not answer, and a web server."""

    def __init__(self, directory: Path, inbox: Inbox) -> None:
        self.directory, self.inbox = directory, inbox
        self.place = directory / "state"
        self.place.mkdir()
        (directory / "deploy.py").write_text(DEPLOY)
        data = {
            "services": ["redis"],
            "api_clients": [{"name": "app", "sha256": "cd" * 32}],
            "receipt_directory": str(self.place),
            "announce_webhook": f"http://127.0.0.1:{inbox.port}/",
        }
        lost = {"ssh_hostname": "127.0.0.1", "ssh_port": 1, "ssh_user": "nobody"}
        self.local, self.lost = ("@local", data), ("lost", {**data, **lost})
        self.declare(self.local, self.lost)

    def declare(self, *hosts: tuple[str, dict[str, Any]]) -> None:
        (self.directory / "site.py").write_text(f"llm_servers = {[*hosts]!r}\n")

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """pyinfra, with a /run of its own: the lock of a host is there."""
        command = [str(PYINFRA), "site.py", "deploy.py", "-y", *options]
        return subprocess.run(
            [*APART, *command], cwd=self.directory, capture_output=True, text=True, timeout=120
        )

    def announced(self) -> list[dict[str, Any]]:
        bodies = [body for _, _, body in self.inbox.requests]
        self.inbox.requests.clear()
        return bodies


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with web_server() as inbox:
        yield Site(tmp_path, inbox)


def test_run_that_changes_something_is_announced_and_others_are_not(site: Site) -> None:
    assert site.run("--limit", "@local", "--dry").returncode == 0
    assert site.announced() == []
    ran = site.run("--limit", "@local")
    assert ran.returncode == 0, ran.stderr
    [body] = site.announced()
    assert (body["result"], body["event"]) == ("done", "deploy")
    assert body["hosts"] == [
        {"host": "@local", "result": "changed", "changed": [FIRST], "failed": ""}
    ]
    assert body["text"].startswith("Deploy of 1 host: 1 changed\n- @local: changed")
    assert site.run("--limit", "@local").returncode == 0  # with nothing to do
    assert site.announced() == []
    assert site.run("--limit", "@local", "--data", "announce_after=always").returncode == 0
    [body] = site.announced()
    assert [each["result"] for each in body["hosts"]] == ["unchanged"]


def test_failures_are_announced_with_the_operation_and_without_output(site: Site) -> None:
    (site.place / "broken").touch()
    ran = site.run()
    assert ran.returncode != 0
    [body] = site.announced()
    results = {each["host"]: each for each in body["hosts"]}
    assert body["result"] == "failed" and body["text"].startswith("Deploy of 2 hosts: 1 failed")
    assert results["lost"]["result"] == "unreachable"
    assert (results["@local"]["result"], results["@local"]["failed"]) == ("failed", FIRST)
    assert "/proc/no" in ran.stderr and "/proc/no" not in str(body)


def test_interrupted_run_is_announced_as_such(site: Site) -> None:
    (site.place / "slow").touch()
    site.declare(site.local)  # pyinfra's pool has room for as many commands as there are hosts
    command = [*APART, str(PYINFRA), "site.py", "deploy.py", "-y"]
    with running(
        command, cwd=site.directory, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (site.place / "first").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait(60)
    [body] = site.announced()
    [host] = body["hosts"]
    assert (body["result"], host["result"]) == ("failed", "interrupted")
    assert host["changed"][0] == FIRST


def test_announcement_that_fails_does_not_fail_the_run(site: Site) -> None:
    site.inbox.status = 500
    ran = site.run("--limit", "@local")
    assert ran.returncode == 0
    assert "the end of this deploy was not announced: the webhook answered 500" in ran.stderr
