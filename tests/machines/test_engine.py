"""The engine's archive holds Debian's llama.cpp, and it really runs the tiny model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.machines import tiny_model
from tests.machines.engine import engine_archive
from tests.machines.process import ProcessId, spawn, wait_until

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(os.geteuid() != 0, reason="test machines need root"),
]

ADDRESS = "127.231.0.2:8080"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("engine")
    with tarfile.open(engine_archive()) as archive:
        archive.extractall(directory, filter="fully_trusted")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The engine with the model, in a file system of its own, as a container would have it."""
    tiny_model.write(root / "tiny.gguf")
    address, port = ADDRESS.split(":")
    program = ["llama-server", "-m", "/tiny.gguf", "-c", "512", "--host", address, "--port", port]
    enter = 'mount --bind /dev "$0/dev"; mount -t proc proc "$0/proc"; exec chroot "$0" "$@"'
    isolated = ["unshare", "--mount", "sh", "-c", enter, str(root), *program]
    process = spawn(isolated, tmp_path_factory.mktemp("log") / "server.log")
    assert wait_until(lambda: _healthy(process), 30)
    yield f"http://{ADDRESS}"
    process.send(signal.SIGKILL)
    process.wait(10)


def _healthy(process: ProcessId) -> bool:
    assert process.alive()
    try:
        return httpx.get(f"http://{ADDRESS}/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def test_archive_has_no_package_manager_and_no_shell(root: Path) -> None:
    found = {path.name for path in (root / "usr/bin").iterdir()}
    assert {"llama-server", "curl"} <= found
    assert not {"apt-get", "dpkg", "bash", "dash"} & found


def test_model_streams_readable_letters(server: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hällo, 세계"}], "stream": True, "seed": 1}
    with httpx.stream("POST", f"{server}/v1/chat/completions", json=body, timeout=60) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert len(text) > 3 and set(text) <= set("abcdefghijklmnopqrstuvwxyz., ")


def test_archive_is_built_once() -> None:
    before = engine_archive().stat()
    assert engine_archive().stat() == before
    assert subprocess.run(["tar", "-tf", engine_archive()], capture_output=True).returncode == 0
