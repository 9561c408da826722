"""A configuration that Docker does not start with is replaced by the last one: the scripts with
doubles of systemctl and dockerd."""

import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from llmhost.resources import script
from llmhost.system.files import candidate_path
from llmhost.system.systemd import Step
from llmhost.system.systemd import script as steps_script

# Starts unless a file that it reads says that it must not.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>asked
case $* in
*is-active*) [ -e active ] ;;
show*) cat started 2>/dev/null || echo ;;
"restart docker.service")
  rm -f active
  grep -qs refused etc/daemon.json broken && exit 1
  LC_ALL=C date -u '+%a %F %T.%6N UTC' >started
  touch active
  ;;
esac
"""


class Ran(NamedTuple):
    """The end of a script."""

    succeeded: bool
    said: str


class Host:
    """A host whose directory holds all files of Docker."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("etc", "records"):
            (place / name).mkdir()
        for name, text in {"systemctl": SYSTEMCTL, "dockerd": "#!/bin/sh\n"}.items():
            (place / name).write_text(text)
            (place / name).chmod(0o755)

    def __getitem__(self, name: str) -> str | None:
        path = self.place / name
        return path.read_text() if path.exists() else None

    def run(self, command: str) -> Ran:
        environment = {"PATH": f"{self.place}:{os.environ['PATH']}"}
        ran = subprocess.run(
            ["sh", "-c", command], cwd=self.place, env=environment, capture_output=True, text=True
        )
        time.sleep(0.05)  # the clock of files is coarse
        return Ran(ran.returncode == 0, ran.stderr)

    def start(self) -> Ran:
        settle = script(
            "docker/settle_config.sh", "last", "etc/daemon.json", "records", functions=FUNCTIONS
        )
        return self.run(steps_script("docker.service", (Step("restart", ""),), settle))

    def install(self, config: str) -> Ran:
        """As operations/docker.py does, with the config as the record of its keys."""
        paths = ("etc/daemon.json", "records/own.json.before", "records/own.json")
        candidates = [candidate_path(path) for path in paths]
        for path in candidates:
            (self.place / path).write_text(config)
        new, before, after = candidates
        arguments = (new, "etc/daemon.json", before, "records/own.json", after, "last")
        command = script("docker/install_config.sh", *arguments, functions=FUNCTIONS)
        return self.run(command)


FUNCTIONS = "docker/functions.sh"
RESTORED = (
    "Docker does not start with the new etc/daemon.json: the old one is restored, and Docker runs"
    " again"
)


@pytest.fixture
def fresh(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def host(fresh: Host) -> Host:
    """Docker runs with a configuration of ours."""
    assert fresh.install("old").succeeded
    assert fresh.start().succeeded
    return fresh


def test_configuration_that_works_replaces_the_old_one(host: Host) -> None:
    host.install("new")
    assert host.start() == (True, "")
    assert (host["etc/daemon.json"], host["records/own.json"]) == ("new", "new")
    assert not (host.place / "last").exists()


def test_configuration_that_docker_refuses_is_replaced_by_the_old_one(host: Host) -> None:
    host.install("refused")
    ran = host.start()
    assert not ran.succeeded and ran.said.splitlines()[-1] == RESTORED
    assert (host["etc/daemon.json"], host["records/own.json"]) == ("old", "old")
    assert host["active"] is not None and not (host.place / "last").exists()
    assert sorted(path.name for path in (host.place / "records").iterdir()) == ["own.json"]


def test_next_run_restores_what_a_killed_one_replaced(host: Host) -> None:
    host.install("refused")  # killed before the restart
    host.install("refused too")
    assert not host.start().succeeded
    assert (host["etc/daemon.json"], host["records/own.json"]) == ("old", "old")


def test_docker_without_a_configuration_gets_none(fresh: Host) -> None:
    assert fresh.start().succeeded
    fresh.install("refused")
    assert fresh.start().said.splitlines()[-1] == RESTORED
    assert fresh["etc/daemon.json"] is None and fresh["active"] is not None


def test_docker_that_starts_with_neither_is_reported(host: Host) -> None:
    host.install("new")
    (host.place / "broken").write_text("refused")
    ran = host.start()
    assert not ran.succeeded
    assert ran.said.splitlines()[-1] == (
        "Docker starts neither with the new etc/daemon.json nor with the old one, which is restored"
    )
    assert host["etc/daemon.json"] == "old"


def test_configuration_that_docker_has_run_with_stays(host: Host) -> None:
    """Another reason keeps it from starting, and a killed run has left a copy."""
    host.install("new")
    assert host.run("systemctl restart docker.service").succeeded
    (host.place / "broken").write_text("refused")
    assert not host.start().succeeded
    assert host["etc/daemon.json"] == "new"


def test_first_configuration_stays_for_its_correction(fresh: Host) -> None:
    fresh.install("refused")
    assert not fresh.start().succeeded
    assert fresh["etc/daemon.json"] == "refused" and not (fresh.place / "last").exists()


@pytest.mark.parametrize(
    ("options", "installed"),
    [("--validate", "old"), ("--debug", "new")],
    ids=["docker-23", "docker-20.10"],
)
def test_engine_that_can_validates_first(host: Host, options: str, installed: str) -> None:
    """Docker 20.10 refuses the option, not the file."""
    (host.place / "dockerd").write_text(f"#!/bin/sh\n[ $1 = --help ] && echo {options}\n")
    assert host.install("new").succeeded is (installed == "new")
    assert host["etc/daemon.json"] == installed
