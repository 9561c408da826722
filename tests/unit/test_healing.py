"""The script that heals containers, run against a docker that keeps its containers in a file."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmhost.options.healing import Healing
from llmhost.template import render

# Understands what the script asks, and nothing else.
DOCKER = f"""\
#!{sys.executable}
import json, sys
from pathlib import Path
place = Path(sys.argv[0]).parent
containers = json.loads((place / "containers.json").read_text())
verb, *words = sys.argv[1:]
with (place / "docker.log").open("a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if verb == "ps":
    filters = [words[i + 1].partition("=") for i, word in enumerate(words) if word == "--filter"]
    states = [value for key, _, value in filters if key == "status"]
    health = [value for key, _, value in filters if key == "health"]
    labels = [value.partition("=")[2] for key, _, value in filters if "compose.service" in value]
    assert ("label", "=", "com.docker.compose.project=llmhost") in filters
    assert ("label", "=", "com.docker.compose.oneoff=False") in filters
    for name, it in containers.items():
        if it["State"]["Status"] not in (states or ["running"]) and "--all" not in words:
            continue
        if states and it["State"]["Status"] not in states:
            continue
        if health and it.get("health") not in health:
            continue
        if labels and it["service"] not in labels:
            continue
        print(name)
elif verb == "inspect":
    _, form, name = words
    it = containers[name]
    state = [it["State"]["Status"], it["policy"], it["service"], it["needs"], it["State"]["Error"]]
    print("first\\n\\nno answer within 10 s" if "Health.Log" in form else "|".join(state))
elif verb in ("start", "restart", "rm", "compose"):
    if (place / "fails").exists():
        print("Error response from daemon: " + (place / "fails").read_text(), file=sys.stderr)
        if verb == "start":
            print("Error: failed to start containers: " + words[-1], file=sys.stderr)
        sys.exit(1)
    print(words[-1])
else:
    sys.exit("docker: unknown command " + verb)
"""


class Host:
    """A directory with the script, its notes, the containers and the double of docker."""

    def __init__(self, place: Path, restarts_per_hour: int) -> None:
        script = render(
            "healing/llmhost-heal.j2",
            project="llmhost",
            compose_file="/opt/llmhost/compose.yaml",
            stopped=place / "stopped",
            healing=Healing(restarts_per_hour=restarts_per_hour),
        )
        (place / "heal").write_text(script)
        (place / "docker").write_text(DOCKER)
        (place / "docker").chmod(0o755)
        (place / "docker.log").touch()
        (place / "stopped").mkdir()
        self.place = place
        self.containers: dict[str, dict[str, Any]] = {}

    def add(
        self,
        service: str,
        status: str,
        error: str = "",
        *,
        health: str = "",
        policy: str = "unless-stopped",
        needs: str = "",
    ) -> None:
        self.containers[f"llmhost-{service}-1"] = {
            "State": {"Status": status, "Error": error},
            "health": health,
            "policy": policy,
            "service": service,
            "needs": needs,
        }

    def heal(self) -> list[str]:
        """What the journal would get."""
        (self.place / "containers.json").write_text(json.dumps(self.containers))
        path = f"{self.place}:{os.environ['PATH']}"
        environment = {"PATH": path, "RUNTIME_DIRECTORY": str(self.place)}
        run = ["dash", str(self.place / "heal")]
        said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
        assert said.stderr == ""
        return said.stdout.splitlines()

    def did(self, *verbs: str) -> list[str]:
        calls = (self.place / "docker.log").read_text().splitlines()
        return [call for call in calls if call.split()[0] in verbs]

    def fail(self, why: str) -> None:
        (self.place / "fails").write_text(why)

    def succeed(self) -> None:
        (self.place / "fails").unlink()

    def age(self, seconds: int) -> None:
        """Let the last failures be this much older."""
        for note in self.place.glob("*.failed"):
            failures, last = map(int, note.read_text().split())
            note.write_text(f"{failures} {last - seconds}\n")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, restarts_per_hour=2)


SICK = "llmhost-a-1 is unhealthy: restarting it; its health check printed: no answer within 10 s"
NO_DRIVER = 'could not select device driver "cdi" with capabilities: [[gpu]]'


def test_unhealthy_container_is_restarted_and_named(host: Host) -> None:
    host.add("a", "running", health="unhealthy")
    assert host.heal() == [SICK]
    assert host.did("restart", "start") == ["restart llmhost-a-1"]
    host.fail("no")
    failed = "llmhost-a-1 could not be restarted: Error response from daemon: no"
    assert host.heal() == [SICK, failed]


def test_container_is_left_alone_beyond_the_limit(host: Host) -> None:
    host.add("a", "running", health="unhealthy")
    host.add("b", "exited", NO_DRIVER)
    host.heal()
    host.heal()
    times = "but was restarted 2 times within an hour: not restarting it"
    assert host.heal() == [
        f"llmhost-b-1 is exited: {NO_DRIVER} {times}",
        f"llmhost-a-1 is unhealthy {times}",
    ]
    assert len(host.did("restart")) == len(host.did("start")) == 2


def test_restarts_of_more_than_an_hour_ago_do_not_count(host: Host) -> None:
    old, recent = int(time.time()) - 3601, int(time.time()) - 60
    host.add("a", "running", health="unhealthy")
    (host.place / "llmhost-a-1").write_text(f"{old}\n{old}\n{recent}\n")
    assert host.heal() == [SICK]
    kept = (host.place / "llmhost-a-1").read_text().split()
    assert kept[0] == str(recent) and len(kept) == 2


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        ("exited", NO_DRIVER, f"is exited: {NO_DRIVER}"),
        ("exited", "unresolvable\nCDI devices", "is exited: unresolvable CDI devices"),
        ("created", "", "was created and never started"),
        ("created", "port is in use", "was created and never started: port is in use"),
    ],
)
def test_container_that_should_run_is_started(
    host: Host, status: str, error: str, reason: str
) -> None:
    host.add("a", status, error)
    assert host.heal() == [f"llmhost-a-1 should run but {reason}: starting it"]
    assert host.did("start", "restart", "rm", "compose") == ["start llmhost-a-1"]


def test_dead_container_is_recreated(host: Host) -> None:
    host.add("a", "dead", "device busy")
    why = "is dead, because Docker could not remove it: device busy"
    assert host.heal() == [f"llmhost-a-1 should run but {why}: starting it"]
    assert host.did("start", "rm", "compose") == [
        "rm --force llmhost-a-1",
        "compose --file /opt/llmhost/compose.yaml up --detach --no-deps a",
    ]


def test_container_that_an_operator_stopped_is_left_alone(host: Host) -> None:
    host.add("a", "exited")  # docker stop
    host.add("b", "exited", NO_DRIVER)
    (host.place / "stopped/b").write_text("stopped by a@b at 2026-11-28T12:00:00Z\n")
    host.add("c", "exited", NO_DRIVER, policy="no")  # docker update --restart no
    host.add("d", "paused")
    assert host.heal() == []
    assert host.did("start", "restart", "rm") == []


def test_container_that_does_not_start_is_tried_after_growing_pauses(host: Host) -> None:
    host.add("a", "exited", NO_DRIVER)
    host.fail("unresolvable CDI devices")
    told = [
        f"llmhost-a-1 should run but is exited: {NO_DRIVER}: starting it",
        "llmhost-a-1 could not be started: Error response from daemon: unresolvable CDI devices",
    ]
    for pause in (0, 30, 90, 210, 450, 870, 870, 870):
        host.age(pause - 5)
        assert pause == 0 or host.heal() == []
        host.age(5)
        assert host.heal() == told
    host.succeed()
    host.age(900)
    assert host.heal() == told[:1]
    assert not (host.place / "llmhost-a-1.failed").exists()


def test_failed_starts_do_not_use_up_the_restarts(host: Host) -> None:
    host.add("a", "exited", NO_DRIVER)
    host.fail("unresolvable CDI devices")
    for _ in range(5):
        host.heal()
        host.age(1000)
    host.succeed()
    assert len(host.heal()) == 1
    assert len(host.did("start")) == 6


def test_container_waits_for_the_services_that_it_needs(host: Host) -> None:
    needs = "b:service_healthy:false,c:service_started:false"
    host.add("a", "created", needs=needs)
    host.add("b", "running", health="starting")
    assert host.heal() == ["llmhost-a-1 should run but waits until b is healthy"]
    (host.place / "stopped/b").touch()
    assert host.heal() == ["llmhost-a-1 should run but was created and never started: starting it"]
    (host.place / "stopped/b").unlink()
    host.add("b", "running", health="healthy")
    assert host.heal() == ["llmhost-a-1 should run but was created and never started: starting it"]
