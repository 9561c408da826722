"""Before a training stops a service, its open requests end: the real nginx and the real ss.

The functions of files/training/host.py run as on a host; only Docker is a double, which ends the
engine.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from llmhost.training.data import Example, Examples
from llmhost.training.job import HostJob
from tests.integration.test_gateway_stopped import CHAT, KEY, Server, serving
from tests.unit.test_training import host, settings_of
from tests.unit.test_training import job as declared_job

__all__ = ["host"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "n") as found:
        yield found


@pytest.fixture
def stopping(
    host: ModuleType, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """When Docker stopped the engine."""
    stopped: list[float] = []
    real = host.output_of

    def output_of(*command: str) -> str:
        if command[:2] != ("docker", "compose"):
            return str(real(*command))
        assert command[-2:] == ("stop", "llamacpp")
        stopped.append(time.monotonic())
        server.engines["llamacpp"].__exit__(None, None, None)
        return ""

    monkeypatch.setattr(host, "output_of", output_of)
    return stopped


def question(host: ModuleType, server: Server, place: Path, seconds: int) -> Any:
    """What the controller would send, with the places of this gateway."""
    (job,) = settings_of(declared_job()).training_jobs
    chosen = job.model_copy(update={"stop_services": ("llamacpp",), "gpu": None})
    made = HostJob(server.gateway.settings, chosen, Examples((Example("x"),), ()), seconds)
    (place / "question.json").write_text(json.dumps(made.question))
    return host.Question(place)


def ask(server: Server) -> int:
    return server.post(model="brain").status_code


def test_open_stream_ends_and_new_requests_wait_for_the_services_return(
    host: ModuleType, server: Server, tmp_path: Path, stopping: list[float]
) -> None:
    asked = {"model": "brain", "stream": True, "chunks": 30, "interval": 0.1}
    headers = {"Authorization": f"Bearer {KEY}"}
    url = server.gateway.url + CHAT
    halting = threading.Thread(
        target=host.halt, args=(question(host, server, tmp_path, 60), ["llamacpp"])
    )
    with httpx.stream("POST", url, json=asked, headers=headers, timeout=20) as answer:
        lines = answer.iter_lines()
        next(lines)
        halting.start()
        while not (server.stopped / "llamacpp").exists():
            time.sleep(0.01)
        assert ask(server) == 503
        rest = list(lines)
        ended = time.monotonic()
    halting.join(30)
    assert "data: [DONE]" in rest
    assert stopping and stopping[0] > ended
    assert ask(server) == 503


def test_requests_may_not_take_longer_than_the_limit(
    host: ModuleType,
    server: Server,
    tmp_path: Path,
    stopping: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = {"model": "brain", "stream": True, "chunks": 200, "interval": 0.1}
    headers = {"Authorization": f"Bearer {KEY}"}
    url = server.gateway.url + CHAT
    with httpx.stream("POST", url, json=asked, headers=headers, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        began = time.monotonic()
        host.halt(question(host, server, tmp_path, 3), ["llamacpp"])
    assert 3 <= stopping[0] - began < 6
    assert "requests that were open after 3 s are cut off" in capsys.readouterr().err


def test_idle_service_is_stopped_at_once(
    host: ModuleType, server: Server, tmp_path: Path, stopping: list[float]
) -> None:
    """nginx keeps a connection for some seconds."""
    assert ask(server) == 200
    began = time.monotonic()
    host.halt(question(host, server, tmp_path, 60), ["llamacpp"])
    assert stopping[0] - began < 10


def test_gateway_that_does_not_read_the_marks_is_refused(
    host: ModuleType, server: Server, tmp_path: Path
) -> None:
    asked = question(host, server, tmp_path, 60)
    asked.gateway = server.gateway.directory / "nginx.conf"
    host.check_gateway(asked)
    asked.gateway = tmp_path / "older.conf"
    asked.gateway.write_text("http {}\n")
    with pytest.raises(host.Failure, match="deploy this host first"):
        host.check_gateway(asked)
    asked.gateway = tmp_path / "none"
    host.check_gateway(asked)


def test_marks_that_nginx_cannot_see_are_refused(
    host: ModuleType, server: Server, tmp_path: Path
) -> None:
    asked = question(host, server, tmp_path, 60)
    asked.gateway = server.gateway.directory / "nginx.conf"
    host.mark(asked, "llamacpp")
    server.stopped.parent.chmod(0o700)
    if os.geteuid() == 0:  # then nginx's workers are another user
        assert ask(server) == 200
    with pytest.raises(host.Failure, match=f"open it with: chmod o.x {server.stopped.parent}$"):
        host.check_gateway(asked)
    server.stopped.parent.chmod(0o755)
    assert ask(server) == 503
    host.check_gateway(asked)
