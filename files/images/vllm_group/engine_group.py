"""The first process of a container of an engine group: Ray, and on the head vLLM.

    python3 engine_group.py VLLM-ARGUMENT…

All members of the group must be in Ray before the head starts vLLM, and stay in it. When one is
lost, the program ends, and with it everything in its container; Docker starts it again, and it
waits for the others. So the group comes back by itself when its last member does.

Environment: LLMHOST_GROUP_HEAD (address and port of Ray), LLMHOST_GROUP_OWN and
LLMHOST_GROUP_MEMBERS (addresses), LLMHOST_GROUP_GPUS (of this host), RAY_AUTH_TOKEN.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PACKAGES = "/opt/llmhost/ray"

JOINED = Path(tempfile.gettempdir(), "joined")
"""Written again and again while this host is in the group; a worker's health check reads its
time."""

_HEAD = os.environ["LLMHOST_GROUP_HEAD"]
_OWN = os.environ["LLMHOST_GROUP_OWN"]
_MEMBERS = os.environ["LLMHOST_GROUP_MEMBERS"].split()
_HEAD_ADDRESS, _, _HEAD_PORT = _HEAD.rpartition(":")

_ANSWER_SECONDS = 2
_MOST_SILENCES = 4
"""Questions in a row that the head may leave unanswered, which takes at most twelve seconds."""

_STOP_SECONDS = 30
"""For answers that vLLM has begun."""

_RAY = [
    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
    *("--node-ip-address", _OWN, "--num-cpus", "1"),
    *("--num-gpus", os.environ["LLMHOST_GROUP_GPUS"]),
    # vLLM moves tensors by itself.
    *("--object-store-memory", str(256 * 2**20)),
    # Any free ports: those of Ray's default range may be taken on a host.
    *("--min-worker-port", "0", "--max-worker-port", "0"),
]
_RAY_OF_HEAD = [
    *_RAY,
    "--head",
    "--port",
    _HEAD_PORT,
    "--include-dashboard",
    "false",
    "--no-monitor",
]
_RAY_OF_WORKER = [*_RAY, "--address", _HEAD]

Process = subprocess.Popen[bytes]
Nodes = dict[str, str]
"""Ray's id of each living node, by its address."""


class Head:
    """Ray on the head, which knows who is in the group."""

    def __init__(self) -> None:
        self._client: Any = None
        self._has_answered = False

    def accepts(self) -> str:
        """Why it accepts no connections; empty: it does."""
        try:
            socket.create_connection((_HEAD_ADDRESS, int(_HEAD_PORT)), _ANSWER_SECONDS).close()
        except OSError as error:
            return str(error)
        return ""

    def nodes(self) -> Nodes | None:
        """The living nodes; None if it does not answer."""
        from ray._raylet import GcsClient
        from ray.exceptions import AuthenticationError

        try:
            self._client = self._client or GcsClient(address=_HEAD)
            found = self._client.get_all_node_info(timeout=_ANSWER_SECONDS)
        except AuthenticationError:
            leave(
                "the head has started again"
                if self._has_answered
                else "the head has another token: it has another image, or another"
                " engine_group_token"
            )
        except Exception as error:
            say(f"the head does not answer: {type(error).__name__}")
            return None
        self._has_answered = True
        return {
            each.node_manager_address: id_.hex() for id_, each in found.items() if not each.state
        }


def main() -> None:
    """Run this host's part; never returns."""
    sys.path.insert(0, PACKAGES)
    paths = [PACKAGES, os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    head = Head()
    if _OWN == _HEAD_ADDRESS:
        run_head(head)
    else:
        run_worker(head)


def run_head(head: Head) -> None:
    """Ray, then vLLM once all members are there; end when one of them is lost."""
    ray = subprocess.Popen(_RAY_OF_HEAD)
    while head.accepts():
        end_with(Ray=ray)
        time.sleep(1)
    nodes = all_members(head, ray)
    vllm = subprocess.Popen(
        ["vllm", "serve", *sys.argv[1:]], env={**os.environ, "RAY_ADDRESS": _HEAD}
    )
    signal.signal(signal.SIGTERM, lambda *_: finish(vllm))
    silences = 0
    while True:
        end_with(Ray=ray, vLLM=vllm)
        now = head.nodes()
        silences = silences + 1 if now is None else 0
        if silences >= _MOST_SILENCES:
            leave("Ray does not answer")
        if now is not None and (lost := [one for one, id_ in nodes.items() if now.get(one) != id_]):
            leave(f"{', '.join(lost)} left the group")
        time.sleep(1)


def all_members(head: Head, ray: Process) -> Nodes:
    """The nodes, once each member is one of them."""
    reported: list[str] = []
    while True:
        nodes = head.nodes() or {}
        missing = [each for each in _MEMBERS if each not in nodes]
        if not missing:
            say("all members are here")
            return {each: nodes[each] for each in _MEMBERS}
        if missing != reported:
            say(f"waiting for {', '.join(missing)}")
        reported = missing
        end_with(Ray=ray)
        time.sleep(1)


def run_worker(head: Head) -> None:
    """Ray, as soon as the head is there; end when the head or this host is another of Ray's nodes
    than when it joined, or none."""
    if why := head.accepts():
        say(f"waiting for the head at {_HEAD}: {why}")
    while head.accepts():
        time.sleep(1)
    ray, silences = subprocess.Popen(_RAY_OF_WORKER), 0
    joined: tuple[str, str] | None = None
    while True:
        end_with(Ray=ray)
        nodes = head.nodes()
        silences = silences + 1 if nodes is None else 0
        if silences >= _MOST_SILENCES:
            leave("the head is lost")
        if nodes is not None:
            both = (nodes.get(_HEAD_ADDRESS, ""), nodes.get(_OWN, ""))
            if joined and both != joined:
                leave("the head or this host is no longer in the group, or has joined it again")
            if all(both):
                joined = both
                JOINED.touch()
        time.sleep(1)


def end_with(**children: Process) -> None:
    """End if one of these has ended."""
    for name, child in children.items():
        if child.poll() is not None:
            leave(f"{name} has ended with status {child.returncode}")


def finish(vllm: Process) -> None:
    """Let vLLM end first."""
    vllm.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        vllm.wait(_STOP_SECONDS)
    os._exit(0)


def leave(why: str) -> None:
    """End at once, with all processes of the container."""
    say(f"{why}; starting again")
    os._exit(1)


def say(text: str) -> None:
    print(f"engine group: {text}", flush=True)


if __name__ == "__main__":
    main()
