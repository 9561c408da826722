"""The script that restarts unhealthy containers, run against a docker that only takes notes."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from llmhost.options.healing import Healing
from llmhost.template import render

DOCKER = """\
#!/bin/sh
echo "$*" >>"$0.log"
case $1 in
    ps) printf 'llmhost-a-1\\nllmhost-b-1\\n' ;;
    inspect) printf 'first\\n\\nno answer within 10 s\\n' ;;
    restart) [ "$2" != llmhost-b-1 ] ;;
esac
"""


class Host:
    """A directory with the script, its notes and the double of docker."""

    def __init__(self, place: Path, restarts_per_hour: int) -> None:
        healing = Healing(restarts_per_hour=restarts_per_hour)
        script = render("healing/llmhost-heal.j2", project="llmhost", healing=healing)
        (place / "heal").write_text(script)
        (place / "docker").write_text(DOCKER)
        (place / "docker").chmod(0o755)
        self.place = place

    def heal(self) -> list[str]:
        """What the journal would get."""
        path = f"{self.place}:{os.environ['PATH']}"
        environment = {"PATH": path, "RUNTIME_DIRECTORY": str(self.place)}
        run = ["sh", str(self.place / "heal")]
        said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
        assert said.stderr == ""
        return said.stdout.splitlines()

    @property
    def restarted(self) -> list[str]:
        calls = (self.place / "docker.log").read_text().splitlines()
        return [call.split()[-1] for call in calls if call.startswith("restart")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, restarts_per_hour=2)


def test_unhealthy_containers_are_restarted_and_named(host: Host) -> None:
    assert host.heal() == [
        "llmhost-a-1 is unhealthy: restarting it; its health check printed: no answer within 10 s",
        "llmhost-b-1 is unhealthy: restarting it; its health check printed: no answer within 10 s",
        "llmhost-b-1 could not be restarted",
    ]
    assert host.restarted == ["llmhost-a-1", "llmhost-b-1"]


def test_container_is_left_alone_beyond_the_limit(host: Host) -> None:
    host.heal()
    host.heal()
    told = "is unhealthy but was restarted 2 times within an hour: not restarting it"
    assert host.heal() == [f"llmhost-a-1 {told}", f"llmhost-b-1 {told}"]
    assert len(host.restarted) == 4


def test_restarts_of_more_than_an_hour_ago_do_not_count(host: Host) -> None:
    old, recent = int(time.time()) - 3601, int(time.time()) - 60
    (host.place / "llmhost-a-1").write_text(f"{old}\n{old}\n{recent}\n")
    host.heal()
    assert host.restarted.count("llmhost-a-1") == 1
    kept = (host.place / "llmhost-a-1").read_text().split()
    assert kept[0] == str(recent) and len(kept) == 2


def test_only_containers_of_the_stack_are_looked_at(host: Host) -> None:
    host.heal()
    asked = (host.place / "docker.log").read_text().splitlines()[0]
    assert "label=com.docker.compose.project=llmhost" in asked and "health=unhealthy" in asked
