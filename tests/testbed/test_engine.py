"""The engine's archive holds Debian's llama.cpp, and it really runs the tiny model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testbed.engine import engine_archive
from testbed.local_engine import local_engine

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(os.geteuid() != 0, reason="test machines need root"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("engine")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[str]:
    with local_engine(place, 8080, "127.231.0.2") as url:
        yield url


def test_archive_has_no_package_manager_and_no_shell(server: str, place: Path) -> None:
    found = {path.name for path in (place / "root/usr/bin").iterdir()}
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
