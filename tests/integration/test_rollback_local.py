"""The way back on the real nginx, without a machine; Docker and systemctl are doubles that log."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.facts.kept_deploys import KeptDeploys, status_file
from llmhost.gateway.keys import digest, new_key
from llmhost.history.rollback import (
    DeployPaths,
    Kept,
    KeptState,
    chosen,
    keep_script,
    return_script,
)
from testbed.process import wait_until
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway

STAYS, GOES = new_key(), new_key()

# As the real ones are called by the script; the commands are written down in order.
DOCKER = """#!/bin/sh
echo "docker $*" >>{place}/log
case "$*" in *"config --quiet"*) [ -e services/engine.yaml ] ;; esac
"""
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >>{place}/log
case "$1" in reload) exec nginx -c {nginx}/nginx.conf -s reload ;; esac
"""


@dataclass(frozen=True)
class Site:
    """A gateway and the files of a stack, deployed twice; both deploys are kept."""

    gateway: LocalGateway
    place: Path

    @property
    def places(self) -> DeployPaths:
        return DeployPaths(
            receipt=str(self.place / "lib/receipt.json"),
            stack=str(self.place / "opt"),
            project="llmhost",
            start_timeout_seconds=60,
            gateway=str(self.gateway.directory / "llmhost"),
            certificate="tls.pem",
        )

    @property
    def own(self) -> Path:
        return Path(self.places.gateway)

    def sh(self, script: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        path = f"{self.place}/bin:{os.environ['PATH']}:/usr/sbin"
        return subprocess.run(
            ["sh", "-c", script],
            env=os.environ | {"PATH": path},
            **{"capture_output": True, "text": True, "timeout": 60} | options,
        )

    def keep(self, day: int) -> None:
        text = json.dumps({"time": f"2026-01-0{day}T00:00:00Z", "images": {}})
        kept = self.sh(keep_script(text, self.places), input=text)
        assert kept.returncode == 0, kept.stderr
        Path(self.places.receipt).write_text(text)

    def found(self) -> KeptState:
        status = status_file(self.places.gateway)
        command = KeptDeploys().command(self.places.receipt, status, str(self.place / "uploads"))
        return KeptDeploys().process(self.sh(command).stdout.splitlines())

    def give_back(self) -> "subprocess.CompletedProcess[str]":
        found = self.found()
        kept = chosen(found, 1)
        assert isinstance(kept, Kept)
        return self.sh(return_script(kept, found, self.places, "marker"))

    def loaded(self) -> str:
        port = self.gateway.settings.gateway.status_port
        return httpx.get(f"http://127.0.0.1:{port}/configuration").text.strip()

    def tree(self) -> dict[str, bytes]:
        places = (self.own, self.place / "opt", self.place / "lib/receipt.json")
        files = [file for place in places for file in (place, *place.rglob("*")) if file.is_file()]
        return {str(file): file.read_bytes() for file in files}


def client(name: str, key: str, **options: object) -> dict[str, object]:
    return {"name": name, "sha256": digest(key), **options}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    gateway_port, status_port = free_ports(2)
    data = {
        "gateway_addresses": ["127.0.0.1"],
        "gateway_port": gateway_port,
        "gateway_status_port": status_port,
        "gateway_tls": "off",
        "api_clients": [client("stays", STAYS), client("goes", GOES)],
    }
    (tmp_path / "bin").mkdir()
    for name, text in (("docker", DOCKER), ("systemctl", SYSTEMCTL)):
        program = tmp_path / "bin" / name
        program.write_text(text.format(place=tmp_path, nginx=tmp_path / "nginx"))
        program.chmod(0o755)
    (tmp_path / "lib").mkdir()
    (tmp_path / "opt/services").mkdir(parents=True)
    compose, services = tmp_path / "opt/compose.yaml", tmp_path / "opt/services"
    with local_gateway(data, tmp_path / "nginx") as gateway:
        site = Site(gateway, tmp_path)
        compose.write_text("include:\n  - services/engine.yaml\n")
        (services / "engine.yaml").write_text("first")
        site.keep(1)
        only = [client("stays", STAYS, requests_per_minute=600)]
        gateway.reload(data | {"api_clients": only})
        (site.own / "later.conf").write_text("# of the second deploy\n")
        compose.write_text("include:\n  - services/engine.yaml\n  - services/extra.yaml\n")
        (services / "engine.yaml").write_text("second")
        (services / "extra.yaml").write_text("second")
        site.keep(2)
        declared = (site.own / "status.conf").read_text()
        assert wait_until(lambda: site.loaded() in declared, 10), "nginx takes up the second deploy"
        yield site


def test_both_return_but_for_the_key_that_was_taken_away(site: Site) -> None:
    keys = site.own / "keys.map"
    assert digest(GOES) not in keys.read_text()
    returned = site.give_back()
    assert returned.returncode == 0, returned.stderr
    assert digest(STAYS) in keys.read_text() and digest(GOES) not in keys.read_text()
    assert "goes" in (site.own / "clients.map").read_text()
    assert not (site.own / "later.conf").exists()
    services = site.place / "opt/services"
    assert [file.name for file in services.iterdir()] == ["engine.yaml"]
    assert (services / "engine.yaml").read_text() == "first"
    assert site.loaded() in (site.own / "status.conf").read_text()
    receipt = json.loads(Path(site.places.receipt).read_text())
    assert receipt["time"] == "2026-01-01T00:00:00Z"
    assert [file.name for file in (site.place / "lib/receipts").iterdir()] == [
        "2026-01-02T000000Z.json"
    ]
    assert site.found().earlier == (), "the next step counts from here"


def test_everything_is_tested_before_anything_runs(site: Site) -> None:
    assert site.give_back().returncode == 0
    called = (site.place / "log").read_text().splitlines()
    steps = [line for line in called if "config --quiet" in line or " up " in line]
    assert "config --quiet" in steps[0] and len(steps) == 2
    assert called.index("systemctl reload nginx") > called.index(steps[1])


@pytest.mark.parametrize(
    ("path", "text"), [("nginx/nginx.conf", "nonsense;\n"), ("opt/services/engine.yaml", "")]
)
def test_half_that_is_refused_leaves_everything_as_it_was(site: Site, path: str, text: str) -> None:
    archive = Path(site.places.kept) / "2026-01-01T000000Z.tar"
    inside = f"{site.place}/{path}".lstrip("/")
    spoil = f"echo '{text}' >{inside}" if text else f"rm {inside}"
    spoilt = site.sh(
        f"mkdir spoil && cd spoil && tar -xpf {archive} && {spoil} && tar -cpf {archive} *",
        cwd=site.place,
    )
    assert spoilt.returncode == 0, spoilt.stderr
    before, loaded = site.tree(), site.loaded()
    refused = site.give_back()
    assert refused.returncode != 0
    assert "nonsense" in refused.stderr or not text
    assert site.tree() == before and site.loaded() == loaded
    assert not (site.own.parent / ".llmhost-new").exists()
    assert not (Path(site.places.kept) / ".return").exists()
