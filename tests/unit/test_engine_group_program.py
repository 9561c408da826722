"""The first process of a container of an engine group, with doubles of Ray and vLLM.

The lane multihost runs it with the real ones. The double of Ray reads the nodes from a file.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmhost.resources import FILES
from tests.integration.local_gateway import free_ports

_PROGRAM = FILES / "images/vllm_group/engine_group.py"
_DOUBLE = {
    "ray/__init__.py": "",
    "ray/exceptions.py": "class AuthenticationError(Exception): ...\n",
    "ray/_raylet.py": '''
        """A double of Ray: its nodes are in a file; without the file it does not answer."""
        import json, os
        from types import SimpleNamespace
        from ray.exceptions import AuthenticationError
        class GcsClient:
            def __init__(self, address): ...
            def get_all_node_info(self, timeout):
                nodes = json.load(open(os.environ["DOUBLE_NODES"]))
                if nodes == "wrong token":
                    raise AuthenticationError
                return {
                    bytes([number]): SimpleNamespace(node_manager_address=address, state=0)
                    for number, address in nodes
                }
        ''',
    "ray/scripts/__init__.py": "",
    "ray/scripts/scripts.py": '''
        """A double of `ray start`: on the head it listens."""
        import os, socket, sys, time
        if "--head" in sys.argv:
            port = int(sys.argv[sys.argv.index("--port") + 1])
            listener = socket.create_server(("127.0.0.1", port))
        print("double of Ray", *sys.argv[1:], flush=True)
        time.sleep(60)
        ''',
}


@dataclass
class Scene:
    """The directory of the doubles, and the head's address."""

    home: Path
    head: str

    def nodes(self, found: object) -> None:
        draft = self.home / "draft"
        draft.write_text(json.dumps(found))
        draft.replace(self.home / "nodes")

    def start(self, own: str) -> subprocess.Popen[str]:
        variables = {
            "PATH": f"{self.home}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.home),
            "DOUBLE_NODES": str(self.home / "nodes"),
            "LLMHOST_GROUP_HEAD": self.head,
            "LLMHOST_GROUP_OWN": own,
            "LLMHOST_GROUP_MEMBERS": "127.0.0.1 127.0.0.2",
            "LLMHOST_GROUP_GPUS": "2",
            "TMPDIR": str(self.home),
        }
        log = (self.home / f"{own}.log").open("w")
        command = [sys.executable, str(_PROGRAM), "/models/m", "--port", "8000"]
        return subprocess.Popen(
            command, env=variables, stdout=log, stderr=log, text=True, start_new_session=True
        )

    def log(self, own: str) -> str:
        return (self.home / f"{own}.log").read_text()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    for name, text in _DOUBLE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    vllm = tmp_path / "vllm"
    vllm.write_text('#!/bin/sh\necho "double of vLLM $RAY_ADDRESS $*"\nexec sleep 60\n')
    vllm.chmod(0o755)
    (port,) = free_ports(1)
    found = Scene(tmp_path, f"127.0.0.1:{port}")
    found.nodes([])
    yield found


@pytest.fixture
def started(scene: Scene) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(own: str) -> subprocess.Popen[str]:
        running.append(scene.start(own))
        return running[-1]

    yield start
    for process in running:
        # A container would end the children with it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)


def _until(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


Started = Callable[[str], subprocess.Popen[str]]


def test_head_starts_the_engine_when_all_members_are_there(scene: Scene, started: Started) -> None:
    started("127.0.0.1")
    _until(lambda: "waiting for 127.0.0.1, 127.0.0.2" in scene.log("127.0.0.1"))
    scene.nodes([(1, "127.0.0.1")])
    _until(lambda: "waiting for 127.0.0.2" in scene.log("127.0.0.1"))
    assert "double of vLLM" not in scene.log("127.0.0.1")
    scene.nodes([(1, "127.0.0.1"), (2, "127.0.0.2")])
    expected = f"double of vLLM {scene.head} serve /models/m --port 8000"
    _until(lambda: expected in scene.log("127.0.0.1"))
    ray = scene.log("127.0.0.1")
    assert "--num-gpus 2" in ray and "--include-dashboard false" in ray


@pytest.mark.parametrize(
    "left", [[(1, "127.0.0.1")], [(1, "127.0.0.1"), (3, "127.0.0.2")]], ids=["lost", "restarted"]
)
def test_head_ends_when_a_member_is_lost(scene: Scene, started: Started, left: object) -> None:
    scene.nodes([(1, "127.0.0.1"), (2, "127.0.0.2")])
    head = started("127.0.0.1")
    _until(lambda: "double of vLLM" in scene.log("127.0.0.1"))
    scene.nodes(left)
    assert head.wait(5) == 1
    assert "127.0.0.2 left the group; starting again" in scene.log("127.0.0.1")


def test_worker_waits_for_the_head_and_ends_with_it(scene: Scene, started: Started) -> None:
    worker = started("127.0.0.2")
    _until(lambda: "waiting for the head" in scene.log("127.0.0.2"))
    assert "double of Ray" not in scene.log("127.0.0.2")
    scene.nodes([(1, "127.0.0.1"), (2, "127.0.0.2")])
    started("127.0.0.1")
    _until(lambda: f"--address {scene.head}" in scene.log("127.0.0.2"))
    (scene.home / "nodes").unlink()
    assert worker.wait(15) == 1
    assert "the head is lost; starting again" in scene.log("127.0.0.2")


@pytest.mark.parametrize(
    "left", [[(1, "127.0.0.1")], [(3, "127.0.0.1"), (2, "127.0.0.2")]], ids=["out", "new head"]
)
def test_worker_that_is_no_longer_in_the_group_ends(
    scene: Scene, started: Started, left: object
) -> None:
    scene.nodes([(1, "127.0.0.1"), (2, "127.0.0.2")])
    started("127.0.0.1")
    worker = started("127.0.0.2")
    _until(lambda: f"--address {scene.head}" in scene.log("127.0.0.2"))
    _until((scene.home / "joined").exists)
    scene.nodes(left)
    assert worker.wait(5) == 1
    assert "no longer in the group, or has joined it again" in scene.log("127.0.0.2")


def test_worker_with_another_token_ends(scene: Scene, started: Started) -> None:
    started("127.0.0.1")
    _until(lambda: "double of Ray" in scene.log("127.0.0.1"))
    worker = started("127.0.0.2")
    scene.nodes("wrong token")
    assert worker.wait(10) == 1
    assert "the head has another token" in scene.log("127.0.0.2")


def test_engine_that_ends_is_started_again(scene: Scene, started: Started) -> None:
    (scene.home / "vllm").write_text("#!/bin/sh\nexit 7\n")
    scene.nodes([(1, "127.0.0.1"), (2, "127.0.0.2")])
    assert started("127.0.0.1").wait(10) == 1
    assert "vLLM has ended with status 7" in scene.log("127.0.0.1")
