"""Which runs of a deploy lock their host and write its history: those that execute, however pyinfra
was started. On this machine itself, in processes of their own."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from llmhost.history.run_record import Run, history, run_on
from llmhost.operations import host_channel
from llmhost.operations.lock import not_locked

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "files/history/lock.sh"
PYINFRA = [str(Path(sys.executable).with_name("pyinfra"))]
MODULE = [sys.executable, "-m", "pyinfra"]
pytestmark = pytest.mark.usefixtures("own_machine")

# Notes whether the host is locked, after it was prepared and while it is changed.
_DEPLOY = """
import subprocess
from pyinfra.operations import server
from llmhost.operations import files, lock
from llmhost.system.files import File

look = "flock -n /run/llmhost/deploy.lock true && echo free || echo locked"
lock.locked("{place}/state", name="Lock")
files.present(
    File("{place}/file", "content", owner="{owner}", group="{group}"), name="Write a file"
)
server.shell([f"({{look}}) >{place}/executed"], name="Look")
with open("{place}/prepared", "w") as prepared:
    subprocess.run(["sh", "-c", look], stdout=prepared, check=True)
"""

_WRAPPER = """
import sys
from pyinfra_cli.main import main
sys.argv = ["our-deploy", *sys.argv[1:]]
main()
"""

_SESSION = """
import sys
from pathlib import Path
from gevent import monkey
monkey.patch_all()
from llmhost.cli import session
session.DEPLOY = Path(sys.argv[2])
with session.dry_run(sys.argv[1], []) as (state, _):
    [host] = state.active_hosts
    print(len(host.op_hash_order))
"""

# As `llmhost rollback` and `drain` do it.
_OPERATIONS = """
import sys
from pathlib import Path
from gevent import monkey
monkey.patch_all()
import pyinfra
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage
from pyinfra.operations import server
from llmhost.cli import session
from llmhost.operations import files, lock
from llmhost.system.files import File
place = Path(sys.argv[2]).parent
with session.connected(sys.argv[1], []) as (state, _):
    pyinfra.is_cli = False
    state.set_stage(StateStage.Prepare)
    add_op(state, lock.locked, f"{place}/state", name="Lock")
    file = File(f"{place}/file", "content", owner=place.owner(), group=place.group())
    add_op(state, files.present, file, name="Write a file")
    look = "flock -n /run/llmhost/deploy.lock true && echo free || echo locked"
    add_op(state, server.shell, [f"({look}) >{place}/executed"], name="Look")
    state.set_stage(StateStage.Execute)
    run_ops(state)
"""

_SITE = """
clients = [{"name": "app", "sha256": "ab" * 32}]
hosts = (["@local"], {"services": ["chroma"], "gateway_tls": "off", "api_clients": clients})
"""


def prepare(place: Path) -> Path:
    deploy = place / "deploy.py"
    deploy.write_text(_DEPLOY.format(place=place, owner=place.owner(), group=place.group()))
    return deploy


def start(place: Path, *command: str, answer: str = "") -> "subprocess.CompletedProcess[str]":
    ran = subprocess.run(
        command, cwd=ROOT, input=answer, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran


def runs(place: Path) -> list[Run]:
    path = place / "state/history.jsonl"
    return history(path.read_text().splitlines()) if path.exists() else []


def seen(place: Path, when: str) -> str:
    path = place / when
    return path.read_text().strip() if path.exists() else ""


def assert_locked_and_recorded(place: Path) -> None:
    assert seen(place, "executed") == "locked"
    [run] = runs(place)
    assert (run.result, run.changed) == ("done", ("Write a file",))
    assert run.run == run_on(run.run[:32], "@local")
    assert subprocess.run(["flock", "-n", "/run/llmhost/deploy.lock", "true"]).returncode == 0


@pytest.mark.parametrize("command", [PYINFRA, MODULE, [sys.executable, "-c", _WRAPPER]])
def test_run_that_executes_locks_and_records(command: list[str], tmp_path: Path) -> None:
    start(tmp_path, *command, "@local", str(prepare(tmp_path)), "-y")
    assert seen(tmp_path, "prepared") == "free"
    assert_locked_and_recorded(tmp_path)


def test_run_that_asks_first_locks_once_it_executes(tmp_path: Path) -> None:
    start(tmp_path, *MODULE, "@local", str(prepare(tmp_path)), answer="\n")
    assert seen(tmp_path, "prepared") == "free"
    assert_locked_and_recorded(tmp_path)


@pytest.mark.parametrize("command", [PYINFRA, MODULE])
def test_dry_run_neither_locks_nor_records(command: list[str], tmp_path: Path) -> None:
    start(tmp_path, *command, "@local", str(prepare(tmp_path)), "--dry")
    assert (seen(tmp_path, "prepared"), seen(tmp_path, "executed")) == ("free", "")
    assert not runs(tmp_path) and not (tmp_path / "file").exists()


def test_plan_neither_locks_nor_records(tmp_path: Path) -> None:
    site = tmp_path / "site.py"
    site.write_text(_SITE)
    ran = start(tmp_path, sys.executable, "-c", _SESSION, str(site), str(prepare(tmp_path)))
    assert ran.stdout.strip() == "3"
    assert (seen(tmp_path, "prepared"), seen(tmp_path, "executed")) == ("free", "")
    assert not runs(tmp_path) and not (tmp_path / "file").exists()


def test_operations_of_a_session_lock_and_record(tmp_path: Path) -> None:
    site = tmp_path / "site.py"
    site.write_text(_SITE)
    start(tmp_path, sys.executable, "-c", _OPERATIONS, str(site), str(prepare(tmp_path)))
    assert_locked_and_recorded(tmp_path)


def shell(place: Path, run: str) -> "subprocess.Popen[str]":
    """The shell that holds the lock, as it runs on a host."""
    line = json.dumps({"run": run, "by": "somebody"})
    command = ["sh", "-c", SCRIPT.read_text(), "lock", str(place), line]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_lock_is_taken_from_the_same_run_and_refused_to_another(tmp_path: Path) -> None:
    with shell(tmp_path, "first") as before:
        assert before.stdout and before.stdout.readline() == "locked\n"
        # Over a new connection, while the host has not noticed yet that the other one is lost.
        with shell(tmp_path, "first") as after:
            assert after.stdout and after.stdout.readline() == "locked\n"
            assert before.wait(10) == 0
            with shell(tmp_path, "second") as other:
                assert other.stdout and other.stdout.read().startswith('taken\n{"run": "first"')
            assert after.poll() is None and after.stdin
            after.stdin.close()


def test_machine_with_two_names_is_locked_for_one_of_them(tmp_path: Path) -> None:
    """In one run: the other name would else take the lock as if the connection had been lost."""
    with shell(tmp_path, run_on("first", "llm-a")) as one:
        assert one.stdout and one.stdin and one.stdout.readline() == "locked\n"
        with shell(tmp_path, run_on("first", "llm-b")) as other:
            assert other.stdout and other.stdout.read().startswith("taken\n")
        assert one.poll() is None
        one.stdin.close()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("bash: line 1: sudo: command not found", "this host has no sudo: install it, or connect"),
        ("sh: 1: sudo: not found", "this host has no sudo: install it, or connect as root"),
        ("sudo: a password is required", "cannot be locked: sudo: a password is required"),
    ],
)
def test_shell_that_did_not_start_is_explained(said: str, sentence: str) -> None:
    channel = host_channel._local(f"echo {shlex.quote(said)} >&2; exit 127")
    assert channel.read_line() == ""
    assert sentence in not_locked(channel.read_error().strip())
    channel.close()
