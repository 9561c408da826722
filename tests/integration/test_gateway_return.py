"""A server that trains leaves the pool, and its gateway returns it by itself: the real nginx twice.

The program that a gateway gets is run as it is; only systemctl is a double, because nginx here is
no unit. What the configuration must be is judged by what a deploy would write.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.gateway.pool import Drained
from llmhost.gateway.returner import SCRIPT, returner
from testbed.process import wait_until
from tests.integration import test_gateway_pool as pools
from tests.integration.local_gateway import LocalGateway, local_tree
from tests.integration.test_gateway_pool import Pool, running, server_data


@dataclass(frozen=True)
class Site:
    """A pool, the directory of each server's marks, and a place for the program."""

    pool: Pool
    stacks: list[Path]
    home: Path

    @property
    def gateway(self) -> LocalGateway:
        return self.pool.gateway

    @property
    def own(self) -> Path:
        return self.gateway.directory / "llmhost"

    @property
    def mark(self) -> Path:
        return self.own / "s1.drained"

    @property
    def service(self) -> Path:
        """The mark of the service that the training of the first server has stopped."""
        place = self.stacks[0] / "stopped"
        place.mkdir(exist_ok=True)
        return place / "llamacpp"

    def drain(self, by: Drained = Drained.BY_TRAINING) -> None:
        self.gateway.reload(self.pool.data, {"s1": by})
        assert wait_until(lambda: not self.asked_of_first(), 10)

    def asked_of_first(self) -> int:
        """How many of some requests the first server gets."""
        before = self.pool.counts()[0]
        for _ in range(6):
            assert self.pool.ask().status_code == 200
        return self.pool.counts()[0] - before

    @contextmanager
    def program(self, patience: int = 600) -> Iterator["subprocess.Popen[bytes]"]:
        """The program for the first server, with the places of this gateway."""
        settings = self.gateway.settings
        made = returner(
            settings,
            settings.gateway.upstreams[0],
            ["llamacpp"],
            patience=patience,
            lock=str(self.home / "lock"),
        )
        work = self.home / "s1"
        work.mkdir(exist_ok=True)
        found = next(f for f in made.files if f.path.endswith("question.json")).data.decode()
        local = found.replace("/etc/nginx", str(self.gateway.directory))
        (work / "question.json").write_text(local)
        tools = {**os.environ, "PATH": f"{self.home}:{os.environ['PATH']}:/usr/sbin"}
        command = [sys.executable, "-I", str(SCRIPT), str(work)]
        process = subprocess.Popen(command, env=tools)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def is_returned(self) -> bool:
        return not self.mark.exists()

    def loaded(self) -> str:
        port = self.gateway.settings.gateway.status_port
        return httpx.get(f"http://127.0.0.1:{port}/configuration").text.strip()

    @property
    def calls(self) -> str:
        return (self.home / "calls").read_text()


@pytest.fixture
def site(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    stacks = [Path(tempfile.mkdtemp(prefix="llmhost-stack-")) for _ in range(2)]
    left = iter(stacks)

    def with_stack(place: Path, engine: Any, tls: str) -> dict[str, Any]:
        return server_data(place, engine, tls) | {"stack_directory": str(next(left))}

    monkeypatch.setattr(pools, "server_data", with_stack)
    for each in stacks:
        each.chmod(0o755)
    try:
        with running(tmp_path, tls=getattr(request, "param", "off")) as pool:
            home = tmp_path / "returning"
            home.mkdir()
            (home / "calls").touch()
            systemctl = home / "systemctl"
            systemctl.write_text(
                f'#!/bin/sh\necho "$*" >>{home}/calls\n[ "$*" != "reload nginx" ] ||'
                f" exec nginx -c {pool.gateway.directory}/nginx.conf -s reload\n"
            )
            systemctl.chmod(0o755)
            yield Site(pool, stacks, home)
    finally:
        for each in stacks:
            shutil.rmtree(each)


@pytest.mark.parametrize("site", ["off", "ca"], indirect=True)
def test_server_is_returned_when_its_service_runs_again(site: Site) -> None:
    declared = local_tree(site.gateway.settings, site.gateway.directory)
    site.drain()
    with site.program() as process:
        time.sleep(3)
        # The training may still begin.
        assert site.mark.exists() and process.poll() is None
        site.service.write_text("stopped by the training house at noon\n")
        time.sleep(5)
        assert site.mark.exists() and not site.asked_of_first()
        site.service.unlink()
        assert wait_until(site.is_returned, 15)
        assert process.wait(10) == 0
    assert wait_until(lambda: site.asked_of_first() >= 2, 10)
    assert "disable --quiet llmhost-return-s1.service" in site.calls
    assert not (site.home / "s1").exists()
    if declared.digest != site.loaded():
        # Only with a certificate, which is new in each tree here.
        assert site.gateway.settings.gateway.tls == "ca"
        kept = {f.path: f.data for f in declared.files if not f.path.endswith("/tls.pem")}
        assert {path: Path(path).read_bytes() for path in kept} == kept
    left = {path.name for path in site.own.iterdir()}
    assert left == {Path(f.path).name for f in declared.all_files} - {"nginx.conf"}
    assert not list(site.gateway.directory.glob(".llmhost*"))


def test_training_that_never_began_is_forgotten(site: Site) -> None:
    """The controller was killed between the drain and the start."""
    site.drain()
    with site.program(patience=3) as process:
        assert process.wait(20) == 0
    assert site.is_returned()


def test_what_a_person_took_over_stays_drained(site: Site) -> None:
    site.drain()
    with site.program() as process:
        time.sleep(2)
        site.drain(Drained.BY_HAND)
        assert process.wait(15) == 0
    assert site.mark.exists() and not site.asked_of_first()


def test_server_that_does_not_answer_stays_drained(site: Site) -> None:
    site.drain()
    settings = site.gateway.settings
    closed = settings.gateway.upstreams[0].model_copy(update={"port": 1})
    gateway = settings.gateway.model_copy(update={"upstreams": (closed,)})
    moved = settings.model_copy(update={"gateway": gateway})
    elsewhere = replace(
        site, pool=replace(site.pool, gateway=replace(site.gateway, settings=moved))
    )
    with elsewhere.program(patience=0) as process:
        time.sleep(5)
        assert process.poll() is None and site.mark.exists()


def test_deploy_of_the_gateway_is_waited_for(site: Site) -> None:
    site.drain()
    with (site.home / "lock").open("a") as lock, site.program(patience=0) as process:
        fcntl.flock(lock, fcntl.LOCK_EX)
        time.sleep(5)
        assert process.poll() is None and site.mark.exists()
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert process.wait(15) == 0
    assert site.is_returned()


def test_configuration_that_nginx_refuses_is_left_alone(site: Site) -> None:
    site.drain()
    broken = site.gateway.directory / "nginx.conf"
    whole = broken.read_text()
    broken.write_text(whole + "nonsense;\n")
    before = (site.own / "upstreams.conf").read_text()
    with site.program(patience=0) as process:
        time.sleep(5)
        assert process.poll() is None and site.mark.exists()
        assert (site.own / "upstreams.conf").read_text() == before
        broken.write_text(whole)
        assert process.wait(15) == 0
    assert site.is_returned() and "reload nginx" in site.calls


def test_nginx_that_does_not_run_is_waited_for(site: Site) -> None:
    site.drain()
    tool = site.home / "systemctl"
    whole = tool.read_text()
    tool.write_text("#!/bin/sh\nexit 1\n")
    with site.program(patience=0) as process:
        time.sleep(5)
        assert process.poll() is None and site.mark.exists()
        tool.write_text(whole)
        assert process.wait(15) == 0
    assert site.is_returned() and "reload nginx" in site.calls


def test_killed_program_begins_again(site: Site) -> None:
    """systemd starts it again, also after a reboot of the gateway."""
    site.drain()
    site.service.write_text("stopped by the training house at noon\n")
    with site.program(patience=0):
        time.sleep(3)
    assert site.mark.exists()
    site.service.unlink()
    with site.program(patience=0) as process:
        assert process.wait(15) == 0
    assert site.is_returned()


def test_question_has_no_key(site: Site) -> None:
    settings = site.gateway.settings
    made = returner(settings, settings.gateway.upstreams[0], ["llamacpp"], patience=1, lock="/x")
    texts = [file.data.decode() for file in made.files]
    assert not any(pools.GATEWAY in text for text in texts)
    json.loads(texts[1])
