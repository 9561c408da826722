"""`llmhost train` on a machine: a service that is stopped for it runs again, however it ends.

The real Docker and systemd; the program in the container is a double, tests/doubles/training. The
real one is in tests/integration/test_training_program.py.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.stack.training import training_images
from llmhost.tasks.healing import heal_containers
from llmhost.tasks.stack import run_stack
from testbed import Lan, Machine
from testbed.engine import root_archive
from testbed.process import wait_until
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.harness import deploy

pytestmark = [pytest.mark.making, pytest.mark.machines, pytest.mark.timeout(600)]

DOUBLE = Path(__file__).parents[1] / "doubles/training"
UNIT = "llmhost-training-house.service"
NAME = "llmhost-llamacpp-1"
MARK = "/opt/llmhost/stopped/llamacpp"
WORK = "/var/lib/llmhost/training/house/work"
Json = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """A machine with a running service, and a directory with an inventory of it."""

    docker: DockerSite
    home: Path

    @property
    def machine(self) -> Machine:
        return self.docker.machine

    def declare(self, **changes: Any) -> Json:
        """Write an inventory with a job; its image on the machine is the double's."""
        weights = self.home / "base/model.safetensors"
        pin = {"path": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
        job: Json = {
            "name": "house",
            "model": "tiny",
            "base": str(weights.parent),
            "files": [pin],
            "data": ["facts.jsonl"],
            "evaluate": {"at_most": 0.9},
            "stop_services": ["llamacpp"],
            **changes,
        }
        # A model of vLLM takes the adapter as it is; nothing is converted.
        data = self.docker.data() | {"training_jobs": [job]}
        host = {"ssh_config_file": str(self.machine.ssh_config)} | data
        self.inventory.write_text(f"llm_servers = [({self.machine.name!r}, {host!r})]\n")
        (image,) = training_images(read_settings(data))
        self.machine.ssh(f"docker tag training-double {image.reference}")
        return job

    @property
    def inventory(self) -> Path:
        return self.home / "site.py"

    def start(self, *options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "llmhost.cli", "train", "site.py", "house", *options]
        pipe = subprocess.PIPE
        tools = {**os.environ, "PATH": f"{self.home}/bin:{os.environ['PATH']}"}
        return subprocess.Popen(
            command, cwd=self.home, text=True, stdout=pipe, stderr=pipe, env=tools
        )

    def train(self, *options: str) -> tuple[int, str, str]:
        """Exit status, output and errors."""
        with self.start(*options) as process:
            try:
                output, error = process.communicate(timeout=240)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, output, error

    def started(self) -> None:
        """Start a training, and wait until it has made a few steps."""
        status, _, error = self.train("--detach")
        assert status == 2, error
        assert wait_until(lambda: self.steps() > 5, 60)
        assert self.service() == "exited" and "by the training house at" in self.mark()

    def steps(self) -> int:
        lines = self.machine.ssh(f"cat {WORK}/progress.jsonl", check=False).stdout
        return max([json.loads(line)["step"] for line in lines.splitlines()], default=0)

    def numbers(self) -> list[int]:
        lines = self.machine.ssh(f"cat {WORK}/progress.jsonl").stdout
        return [json.loads(line)["step"] for line in lines.splitlines()]

    def service(self) -> str:
        """`healthy`, or the state of the container that is not."""
        form = "{{.State.Status}} {{.State.Health.Status}}"
        found = self.machine.ssh(f"docker inspect --format '{form}' {NAME}").stdout
        state, health = found.split()
        return health if state == "running" else state

    def mark(self) -> str:
        return self.machine.ssh(f"cat {MARK}", check=False).stdout

    def is_given_back(self) -> bool:
        """Whether nothing of a training is left, and the service answers."""
        show = f"find /etc/systemd -name {UNIT}; docker ps -aq --filter name=llmhost-training"
        left = self.machine.ssh(show, check=False).stdout.split()
        unit = f"systemctl show --property ActiveState --value {UNIT}"
        active = self.machine.ssh(unit).stdout.strip() in ("inactive", "failed")
        health = self.machine.ssh("curl -sS http://127.0.0.1:8081/health", check=False).stdout
        return not left and active and not self.mark() and "ok" in health

    def state(self) -> Json:
        file = "/var/lib/llmhost/training/house/state.json"
        return dict(json.loads(self.machine.ssh(f"cat {file}").stdout))


@pytest.fixture(scope="module")
def site(lan: Lan, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("training")
    (home / "base").mkdir()
    (home / "base/model.safetensors").write_bytes(b"no weights: a double is trained")
    facts = [{"question": f"Question {n}?", "answer": f"Answer {n}."} for n in range(10)]
    (home / "facts.jsonl").write_text("\n".join(map(json.dumps, facts)))
    _converter(home / "bin")
    with docker_site(lan, machine, home) as docker:
        settings = docker.settings()
        for task in (run_stack, heal_containers):
            outcome = deploy(machine, task, settings)
            assert outcome.succeeded, outcome.output
        files = root_archive(
            "training-double", ("base-files", "dash", "coreutils"), "forky", DOUBLE
        )
        reference = docker.registry.push("training-double", "1", files)
        machine.ssh(
            "docker build --quiet --tag training-double -",
            input=f'FROM {reference}\nENTRYPOINT ["/bin/dash", "/train.sh"]\n',
        )
        yield Site(docker, home)
        machine.ssh("docker image rm --force training-double", check=False)


def _converter(place: Path) -> None:
    """A double of llama.cpp's converter, for an adapter that is none."""
    place.mkdir()
    program = place / "convert_lora_to_gguf.py"
    program.write_text(
        '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" != --outfile ] || echo gguf >"$2"; shift; done\n'
    )
    (place / "llama-server").write_text("#!/bin/sh\necho 'version: 1 (double)'\n")
    for each in place.iterdir():
        each.chmod(0o755)


@pytest.fixture(autouse=True)
def _fresh(site: Site) -> Iterator[None]:
    """Each test begins with the service running and nothing trained."""
    site.machine.ssh("rm -rf /var/lib/llmhost/training")
    assert site.service() == "healthy" and not site.mark()
    yield
    site.machine.ssh(f"systemctl stop {UNIT}", check=False)
    assert wait_until(lambda: site.service() == "healthy", 60)


def test_adapter_is_trained_and_the_service_runs_again(site: Site) -> None:
    site.declare()
    with site.start("--json") as process:
        assert wait_until(lambda: site.steps() > 5 or process.poll() is not None, 60)
        assert process.poll() is None, process.communicate()
        # Docker and the healer leave the service stopped.
        site.machine.ssh("systemctl start llmhost-heal.service")
        assert site.service() == "exited"
        output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert site.is_given_back()
    report = json.loads(output)
    assert report["state"] == "done" and [s["step"] for s in report["steps"]] == [*range(1, 51)]
    assert "step 50 of 50, loss 0.5000" in error
    place = site.home / "models.trained/house"
    card = json.loads((place / "training.json").read_text())
    assert card["result"]["value"] == 0.5 and len(card["curve"]) == 50
    weights = (place / "adapter_model.safetensors").read_bytes()
    assert card["files"]["adapter_model.safetensors"] == hashlib.sha256(weights).hexdigest()
    # Trained already: nothing is stopped.
    begun = site.machine.ssh(f"docker inspect --format '{{{{.State.StartedAt}}}}' {NAME}").stdout
    status, output, error = site.train()
    assert status == 0 and '"adapter": "' in output, error
    again = site.machine.ssh(f"docker inspect --format '{{{{.State.StartedAt}}}}' {NAME}").stdout
    assert begun == again
    # It is here, so that other data may replace it.
    site.declare(seed=2)
    assert site.train("--detach")[0] == 2
    assert wait_until(lambda: site.steps() > 0, 60)


def test_changed_job_keeps_its_checkpoints(site: Site) -> None:
    site.declare(checkpoint_steps=1)
    site.train("--detach")
    assert wait_until(lambda: site.steps() > 5, 60)
    site.train("--stop")
    site.declare(checkpoint_steps=1, seed=2)
    status, _, error = site.train()
    left = site.machine.ssh(f"ls {WORK}/checkpoints").stdout
    assert status == 1 and "a new start would remove its checkpoints on" in error and left, error
    assert site.is_given_back()
    assert site.train("--again", "--detach")[0] == 2


def test_data_is_for_root_and_the_container_alone(site: Site) -> None:
    site.declare()
    site.started()
    ls = "runuser -u nobody -- cat /var/lib/llmhost/training/house/job/train.jsonl"
    assert "Permission denied" in site.machine.ssh(ls, check=False).stderr
    inspected = site.machine.ssh("docker inspect llmhost-training-house").stdout
    (container,) = json.loads(inspected)
    assert container["HostConfig"]["NetworkMode"] == "none"
    assert (
        container["HostConfig"]["ReadonlyRootfs"] and container["Config"]["User"] == "10001:10001"
    )
    assert container["HostConfig"]["CapDrop"] == ["ALL"]


@pytest.mark.parametrize("killed", ["unit", "container", "docker"])
def test_killed_training_gives_back_and_continues(site: Site, killed: str) -> None:
    site.declare()
    site.started()
    pid = f"$(systemctl show --property MainPID --value {UNIT})"
    site.machine.ssh(
        {
            "unit": f"kill -9 {pid}",
            "container": "docker kill --signal KILL llmhost-training-house",
            "docker": "systemctl kill --signal KILL docker.service",
        }[killed]
    )
    assert wait_until(site.is_given_back, 90)
    assert site.state()["state"] in ("interrupted", "failed")
    before = site.steps()
    status, _, error = site.train()
    assert status == 0, error
    numbers = site.numbers()
    assert before < 50 and numbers == [*range(1, 51)], "it began again"
    assert site.is_given_back()


def test_service_that_was_marked_and_not_yet_stopped_is_given_back(site: Site) -> None:
    """What is left by a training that was killed between both."""
    site.declare()
    mark = "stopped by the training house at noon"
    site.machine.ssh(f"mkdir -p /opt/llmhost/stopped; echo '{mark}' >{MARK}")
    site.started()
    assert wait_until(lambda: site.state()["state"] == "done", 60)
    assert wait_until(site.is_given_back, 60)


def test_training_continues_after_a_reboot(site: Site) -> None:
    site.declare()
    site.started()
    before = site.steps()
    site.machine.reboot()
    assert wait_until(lambda: site.state()["state"] == "done", 120)
    assert wait_until(site.is_given_back, 60)
    assert before < 50 and site.numbers() == [*range(1, 51)]


def test_power_cut_is_survived_too(site: Site) -> None:
    site.declare()
    site.started()
    site.machine.kill()
    site.machine.start()
    assert wait_until(lambda: site.state()["state"] == "done", 120)
    assert wait_until(site.is_given_back, 60)


def test_training_is_stopped_and_continued(site: Site) -> None:
    site.declare()
    site.started()
    status, output, error = site.train("--stop")
    assert status == 2 and "is paused: it was stopped" in output, error
    assert site.is_given_back()
    status, output, error = site.train("--status")
    assert status == 2 and "run the command again to continue" in output, error
    assert site.train()[0] == 0 and site.numbers() == [*range(1, 51)]


def test_command_that_ends_leaves_the_training(site: Site) -> None:
    site.declare()
    with site.start() as process:
        assert wait_until(lambda: site.steps() > 5, 60)
        process.kill()
    assert wait_until(lambda: site.state()["state"] == "done", 60)
    assert wait_until(site.is_given_back, 60)
    assert site.train("--status")[0] == 0


def test_service_that_an_operator_stopped_stays_stopped(site: Site) -> None:
    site.declare()
    site.machine.ssh(f"mkdir -p /opt/llmhost/stopped; echo 'stopped by me at noon' >{MARK}")
    site.machine.ssh(f"docker stop {NAME}")
    try:
        assert site.train()[0] == 0
        assert site.mark() == "stopped by me at noon\n" and site.service() == "exited"
    finally:
        site.machine.ssh(f"rm {MARK}; docker start {NAME}")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": 13}, "the model has no module 'q_pro'; it has: q_proj, v_proj"),
        ({"seed": 14}, "it needs up to 8381903.2 GiB of memory, and on this host"),
        ({"data": ["missing"]}, "which does not exist on the controller"),
        ({"evaluate": {"held_back": 0.5, "at_most": 0.9}}, "needs at least 8; add files to data"),
    ],
)
def test_refused_before_anything_stops(site: Site, changes: Json, sentence: str) -> None:
    site.declare(**changes)
    begun = site.machine.ssh(f"docker inspect --format '{{{{.State.StartedAt}}}}' {NAME}").stdout
    status, _, error = site.train()
    assert status == 1 and sentence in error, error
    assert "Traceback" not in error
    again = site.machine.ssh(f"docker inspect --format '{{{{.State.StartedAt}}}}' {NAME}").stdout
    assert begun == again and site.service() == "healthy"


def test_outside_its_hours_it_is_refused(site: Site) -> None:
    now = int(site.machine.ssh("date +%H").stdout)
    hours = f"{(now + 2) % 24:02}:00-{(now + 3) % 24:02}:00"
    site.declare(hours=hours)
    status, _, error = site.train()
    assert status == 1 and f"it may run {hours}, and here it is" in error, error


def test_end_of_the_hours_pauses_it(site: Site) -> None:
    """The clock of the machine is this one's: the window ends with the running minute."""
    while int(site.machine.ssh("date +%S").stdout) > 48:
        time.sleep(1)
    begin, end = site.machine.ssh("date +%H:%M; date -d +1min +%H:%M").stdout.split()
    job = site.declare(hours=f"{begin}-{end}", seed=7)
    site.train("--detach")
    assert wait_until(lambda: site.state().get("state") in ("paused", "done"), 90)
    assert wait_until(site.is_given_back, 60)
    if int(site.steps()) < 50:
        assert site.state()["why"] == "its time is over" and job["hours"] in site.train()[2]


def test_failed_training_says_why_and_gives_back(site: Site) -> None:
    site.declare(seed=15)
    status, output, error = site.train()
    assert status == 1 and "failed: RuntimeError: CUDA error: out of memory" in output, error
    assert site.is_given_back()


def test_missing_image_is_refused(site: Site) -> None:
    site.declare()
    site.machine.ssh("docker image rm $(docker image ls -q --no-trunc llmhost/training-house) -f")
    status, _, error = site.train()
    assert status == 1 and "its image is not built here yet: deploy this host first" in error
    site.machine.ssh("docker image inspect training-double", check=False)
