"""Services that an operator stopped: the commands, their scripts, and what plans say of them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmhost.docker.compose import Container, Project, ProjectState, plan, start_script
from llmhost.docker.stopped import restart_script, stop_script
from llmhost.docker.stopped import start_script as start_service_script
from llmhost.facts.compose import ComposeProject
from llmhost.verify.offline import recreate_script
from tests.unit.test_compose import CONVERGED, PROJECT, RUNNING, _with

TOLD = "stopped by ann@desk at 2026-11-28T12:00:00Z"
LLMHOST = Path(sys.executable).with_name("llmhost")


def _stopped(*containers: Container) -> ProjectState:
    return replace(_with(*containers), stopped={"engine": TOLD})


@pytest.mark.parametrize("containers", [(), (replace(RUNNING, state="exited", config="old"),)])
def test_stopped_service_is_no_drift_and_is_reported(containers: tuple[Container, ...]) -> None:
    found = _stopped(*containers)
    todo = plan(PROJECT, found)
    assert (todo.reasons, todo.remake) == ((), ())
    assert found.notes(PROJECT.services) == [
        f"service engine was {TOLD}, and stays so until `llmhost start engine INVENTORY`"
    ]
    assert CONVERGED.notes(PROJECT.services) == []


def test_service_that_a_training_stopped_needs_no_operator() -> None:
    mark = "stopped by the training house at 2026-11-30T12:00:00+01:00"
    (note,) = replace(_stopped(), stopped={"engine": mark}).notes(PROJECT.services)
    assert note == f"service engine was {mark}, and stays so until that ends"


@pytest.mark.parametrize("state", ["running", "restarting", "paused"])
def test_stopped_service_that_runs_is_drift(state: str) -> None:
    todo = plan(PROJECT, _stopped(replace(RUNNING, state=state)))
    assert todo.reasons == (f"service engine runs, although it was {TOLD}",)


def test_mark_of_a_service_that_is_no_longer_declared_is_removed() -> None:
    gone = plan(replace(PROJECT, services={}, images={}), _stopped(RUNNING))
    assert "/opt/llmhost/stopped/engine" in {entry.path for entry in gone.entries}


def test_fact_reads_who_stopped_a_service_and_when() -> None:
    state = ComposeProject().process([f"stopped|engine:{TOLD}"])
    assert state.stopped == {"engine": TOLD} and state.paths == {}


class Host:
    """A directory as the project's, and a docker that only takes notes."""

    def __init__(self, place: Path) -> None:
        self.place = place
        docker = '#!/bin/sh\necho "$*" >>"$0.log"\nls stopped >>"$0.log" 2>/dev/null; true\n'
        (place / "docker").write_text(docker)
        (place / "docker").chmod(0o755)
        (place / "services").mkdir()
        (place / "services/engine.yaml").touch()
        self.project = Project(
            "llmhost", str(place), "", {"engine": ""}, {}, start_timeout_seconds=60
        )

    def run(self, script: str) -> list[str]:
        """What docker was called with; after each call, the marks at that time."""
        log = self.place / "docker.log"
        log.unlink(missing_ok=True)
        environment = {"PATH": f"{self.place}:{os.environ['PATH']}"}
        subprocess.run(["dash", "-c", script], env=environment, cwd=self.place, check=True)
        return log.read_text().splitlines()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_stop_start_and_restart_are_of_one_service(host: Host) -> None:
    file = f"compose --file {host.place}/compose.yaml"
    up = f"{file} up --detach --no-deps --wait --wait-timeout 60 engine"
    stop = stop_script(host.project, "engine", "ann@desk", "2026-11-28T12:00:00Z")
    # The mark is there before the container stops, so that the healer does not start it again.
    assert host.run(stop) == [f"{file} stop engine", "engine"]
    assert (host.place / "stopped/engine").read_text() == f"{TOLD}\n"
    assert host.run(start_service_script(host.project, "engine")) == [up]
    restarted = host.run(restart_script(host.project, "engine"))
    assert restarted == [f"{file} restart --no-deps engine", up]


def test_deploy_rollback_and_offline_check_leave_a_stopped_service(host: Host) -> None:
    file = str(host.place / "compose.yaml")
    scripts = start_script("llmhost", file, 60), recreate_script(file, 60)
    for script in scripts:
        assert "--scale" not in host.run(script)[0]
    host.run(stop_script(host.project, "engine", "ann@desk", "now"))
    (host.place / "stopped/undeclared").touch()
    for script in scripts:
        assert host.run(script)[0].endswith(" --scale engine=0")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["chroma"], "error: the service chroma is not declared for {}; declared services: redis"),
        (["redis"], "error: far: no SSH connection"),
        (["redis", "near"], "error: no host or group matches near; the inventory has: far"),
    ],
)
@pytest.mark.parametrize("command", ["stop", "start", "restart"])
def test_mistake_is_one_sentence(
    unreachable: Path, command: str, words: list[str], sentence: str
) -> None:
    service, *hosts = words
    ran = subprocess.run(
        [LLMHOST, command, service, unreachable, *hosts], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(sentence.format(unreachable)), ran.stderr
    assert len(ran.stderr.splitlines()) == 1
