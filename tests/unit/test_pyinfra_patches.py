"""What llmhost/operations/pyinfra_patches.py changes in pyinfra gives the same results as before,
and nothing depends on it.

In processes of their own: the patches stay, and pyinfra's command line patches threads.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# Runs a deploy without a host, in which operations lie at several depths and in a loop; prints the
# places that pyinfra gives them, the arguments they get, and what the host's data is.
_PROGRAM = """
import json, sys
from gevent import monkey
monkey.patch_all()
import pyinfra
from llmhost.operations import pyinfra_patches
from pyinfra import host
from pyinfra.api import Config, Inventory, State, arguments
from pyinfra.api.connect import connect_all
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_inventory, ctx_state
from pyinfra_cli.util import load_deploy_file

all_global_arguments = arguments.all_global_arguments
pyinfra.is_cli = True
inventory = Inventory(
    ([("@local", {"a": 1, "_env": {"K": "host"}})], {"d": 4, "_timeout": 7}),
    groups=(["@local"], {"a": 2, "b": 3}),
    override_data={"c": "told"},
)
state, config = State(check_for_changes=False), Config()
with ctx_state.use(state), ctx_config.use(config), ctx_inventory.use(inventory):
    state.init(inventory, config)
    state.set_stage(StateStage.Connect)
    connect_all(state)
    state.set_stage(StateStage.Prepare)
    [each] = inventory
    pyinfra_patches.patch_run(state, each)
    pyinfra_patches.patch_run(state, each)
    load_deploy_file(state, sys.argv[1])
    found = {
        "order": [[key, list(state.op_meta[key].op_order)] for key in state.get_op_order()],
        "arguments": [str(sorted(state.ops[each][key].global_arguments.items(), key=str))
                      for key in each.op_hash_order],
        "data": each.data.dict(),
        "missing": each.data.get("nothing", "default"),
        "types": str(all_global_arguments()),
        "patched": hasattr(all_global_arguments, "cache_clear"),
    }
print(json.dumps(found))
"""

_DEPLOY = """
from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import server

@deploy("Component", data_defaults={"of_the_deploy": "default"})
def component(commands):
    for command in host.loop(commands):
        server.shell(name="Loop", commands=command, _sudo=host.data.get("sudo", False))
    assert host.data.of_the_deploy == "default"

server.shell(name="First", commands="true")
host.data.sudo = True
component(["one", "two"])
for each in range(2): server.shell(name="Same place", commands="true")
"""


def python(
    program: str, *arguments: str, patches: str = "1", check: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Run a program with or without the patches."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=os.environ | {"LLMHOST_PYINFRA_PATCHES": patches},
        capture_output=True,
        text=True,
        check=check,
    )


def test_operations_have_the_same_places_and_arguments(tmp_path: Path) -> None:
    deploy = tmp_path / "deploy.py"
    deploy.write_text(_DEPLOY)
    found = [
        json.loads(python(_PROGRAM, str(deploy), patches=patches).stdout) for patches in ("0", "1")
    ]
    assert [each.pop("patched") for each in found] == [False, True]
    assert found[0] == found[1]
    order = found[0]["order"]
    assert len({key for key, _ in order}) == 5
    own, known = {"_env": {"K": "host"}, "_timeout": 7}, {"a": 1, "b": 3, "c": "told", "d": 4}
    assert found[0]["data"] == {**own, **known, "sudo": True}


_GUARD = """
from gevent import monkey
monkey.patch_all()
import sys, pyinfra
pyinfra.__version__ = sys.argv[1]
from llmhost.operations import pyinfra_patches
from pyinfra.api import Host, arguments
import gevent
print(pyinfra_patches.applicable(), hasattr(arguments.all_global_arguments, "cache_clear"),
      hasattr(Host.run_shell_command, "__wrapped__"), len(gevent.get_hub().NOT_ERROR))
"""


@pytest.mark.parametrize(
    ("version", "patches", "applied"),
    [
        ("3.10.7", "1", "True True True"),
        ("3.9.1", "1", "False False False"),
        ("3.11.0", "1", "False False False"),
        ("3.100.0", "1", "False False False"),
        ("3.10.0", "0", "False False False"),
    ],
)
def test_another_pyinfra_is_left_alone(version: str, patches: str, applied: str) -> None:
    said = python(_GUARD, version, patches=patches).stdout.split()
    assert " ".join(said[:3]) == applied
    assert int(said[3]) == (3 if applied.startswith("True") else 2)


_SMALL = """
from pyinfra import host, state
from pyinfra.operations import server
from llmhost.operations import files, lock
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.operations.summary import summarise
from llmhost.system.files import Absent, Directory, File

patch_run(state, host)
summarise(state)
lock.locked("{place}/state", name="Lock")
own = {{"owner": "{owner}", "group": "{group}"}}
for name in host.loop(["a", "b"]):
    files.present(File(f"{place}/{{name}}", "content", **own), name=f"File {{name}}")
files.present(Directory("{place}/d", **own), Absent("{place}/gone"), name="Directory")
server.shell(["test -e {place}/b"], name="Command of pyinfra")
server.shell(["echo broken >&2; exit 3"], name="Broken")
"""


def small_deploy(place: Path, patches: str) -> list[Any]:
    """Deploy this machine twice, first from nothing; what both runs report, and what is there."""
    place.mkdir()
    (place / "gone").write_text("")
    deploy = place / "deploy.py"
    deploy.write_text(_SMALL.format(place=place, owner=place.owner(), group=place.group()))
    command = [sys.executable, "-m", "pyinfra", "@local", str(deploy), "-y"]
    found: list[Any] = []
    for _ in range(2):
        environment = os.environ | {"LLMHOST_PYINFRA_PATCHES": patches}
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert ran.returncode == 1
        found.append(ran.stderr.replace(str(place), "").splitlines())
    runs = (place / "state/history.jsonl").read_text().splitlines()
    found += [[run["result"], run["changed"], run["failed"]] for run in map(json.loads, runs)]
    found += sorted((each.name, each.is_dir()) for each in place.iterdir())
    return found


@pytest.mark.usefixtures("own_machine")
def test_deploy_without_patches_has_the_same_result(tmp_path: Path) -> None:
    with_patches, without = (small_deploy(tmp_path / each, each) for each in ("1", "0"))
    assert with_patches == without
    first, again, run, nothing, *_ = with_patches
    assert run == ["failed", ["File a", "File b", "Directory"], "Broken"]
    assert nothing == ["failed", [], "Broken"]
    assert first != again and any("1 of 1 host failed" in line for line in first)


_LOST = """
from gevent import monkey
monkey.patch_all()
from pyinfra.api import Host, Inventory
from llmhost.operations import pyinfra_patches

class Connector:
    def run_shell_command(self):
        raise EOFError

host = Host("any", None, [])
host.state, host.connector = True, Connector()
try:
    host.run_shell_command()
except ConnectionResetError as error:
    print(error)
"""


def test_connection_that_ends_is_an_error_of_one_host() -> None:
    """EOFError would end the run of every other host too."""
    assert python(_LOST).stdout == "the connection was lost\n"


_GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent
from pyinfra.api.exceptions import PyinfraError
from llmhost.operations import pyinfra_patches

def end(error):
    raise error

for error in (PyinfraError("No hosts remaining!"), ValueError("a mistake of ours")):
    gevent.spawn(end, error).join()
"""


def test_only_errors_that_pyinfra_does_not_report_have_a_traceback() -> None:
    said = python(_GREENLETS).stderr
    assert "No hosts remaining!" not in said
    assert said.count("Traceback") == 1 and "a mistake of ours" in said


# Ctrl-C at the moment that an argument names, while a local command runs. Another one is started
# afterwards: its fork needs the lock that a hook of the first one took, as `logging` does.
_INTERRUPTED = """
import os, signal, sys, threading, time
from gevent import monkey
monkey.patch_all()
def exit_3(number, frame):
    sys.exit(3)
if sys.argv[1] == "handler of pyinfra":
    signal.signal(signal.SIGINT, exit_3)
import gevent
from gevent import subprocess
def patches():
    from llmhost.operations import pyinfra_patches
gevent.spawn(patches).get()  # as pyinfra does: it reads deploy.py in a greenlet

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.perf_counter()

lock = threading.RLock()
forks = 0

def after_fork():
    global forks
    forks += 1
    if forks == 1 and sys.argv[2] == "in a hook of a fork":
        interrupt()
    lock.release()

os.register_at_fork(before=lock.acquire, after_in_parent=after_fork)
try:
    other = gevent.spawn(subprocess.call, ["sleep", "3"])
    gevent.sleep(0)
    if sys.argv[2] == "in the main program":
        interrupt()
    if sys.argv[2] == "while it waits":
        gevent.spawn_later(0.1, interrupt)
    gevent.sleep(20)
    print("not interrupted")
finally:
    subprocess.call(["true"])
    assert not other.dead
"""


@pytest.mark.parametrize(
    ("handler", "moment", "code"),
    [
        ("handler of pyinfra", "in a hook of a fork", 3),
        ("handler of pyinfra", "in the main program", 3),
        ("handler of pyinfra", "while it waits", 3),
        ("handler of Python", "in a hook of a fork", -signal.SIGINT),
        ("handler of Python", "while it waits", -signal.SIGINT),
    ],
)
def test_interrupt_reaches_the_main_program_alone(handler: str, moment: str, code: int) -> None:
    ran = python(_INTERRUPTED, handler, moment, check=False)
    assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
    assert "Exception ignored" not in ran.stderr and "<callback" not in ran.stderr


def test_interrupt_in_a_hook_is_lost_without_the_patches() -> None:
    program = _INTERRUPTED.replace("sleep(20)", "sleep(1)")
    ran = python(program, "handler of pyinfra", "in a hook of a fork", patches="0", check=False)
    assert ran.stdout == "not interrupted\n" and "Exception ignored" in ran.stderr


# One host, with a pool for one greenlet, which is busy.
_BUSY = """
import time
from gevent import monkey
monkey.patch_all()
import gevent
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.state import StateStage
from llmhost.operations.pyinfra_patches import disconnect

state = State(Inventory((["@local"], {})), Config())
state.set_stage(StateStage.Connect)
connect_all(state)
[host] = state.inventory
busy = state.pool.spawn(host.run_shell_command, "sleep 20")
gevent.sleep(0.5)
begun = time.monotonic()
disconnect(state)
print(time.monotonic() - begun < 10, host.connected, busy.dead)
"""


def test_disconnecting_does_not_wait_for_what_hosts_still_do() -> None:
    assert python(_BUSY).stdout == "True False True\n"


def test_kernel_ends_a_connection_whose_host_is_silent() -> None:
    """Otherwise all hosts of a run wait for ever for one that has lost its power."""
    program = """
import socket
from types import SimpleNamespace as Some
from llmhost.operations.pyinfra_patches import notice_lost_host

with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname()) as wire:
        transport = Some(sock=wire)
        client = Some(get_transport=lambda: transport)
        notice_lost_host(Some(connector=Some(client=client)))
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        found = [wire.getsockopt(socket.IPPROTO_TCP, getattr(socket, each)) for each in names]
        print(wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *found)
        transport.sock = object()  # a channel of a jump host
        notice_lost_host(Some(connector=Some(client=client)))
        notice_lost_host(Some(connector=Some()))  # `@local`
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "1 30 30 3 120000\n", ran.stderr
