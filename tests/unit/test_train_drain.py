"""Which gateways drain a host before it trains, and who returns it."""

import base64
import importlib.util
import io
import json
import os
import shlex
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from llmhost.cli import train_drain
from llmhost.cli.train_drain import Gateways
from llmhost.gateway import tree
from llmhost.gateway.nginx import NginxState
from llmhost.gateway.pool import BY_TRAINING, Drained
from llmhost.gateway.returner import SCRIPT, Returner, returner
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import HostData, no_site_rules, read_site
from llmhost.operations import nginx
from llmhost.system.files import PathState

CLIENT = {"name": "app", "sha256": "1" * 64}
TWO = [{"name": "llm-1", "address": "10.0.0.1"}, {"name": "llm-2", "address": "10.0.0.2"}]


def gate(*services: str, servers: list[dict[str, str]] = TWO) -> dict[str, Any]:
    return {
        "gateway_upstreams": servers,
        "gateway_upstream_services": list(services),
        "gateway_upstream_key": "env:GATEWAY_KEY",
        "gateway_upstream_tls": "off",
        "gateway_tls": "off",
        "api_clients": [CLIENT],
    }


@dataclass
class Site:
    """Gateways that record what they are asked, and refuse it if they are among `refusing`."""

    hosts: Mapping[str, dict[str, Any]]
    refusing: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[str, bool]] = field(default_factory=list)
    returners: list[Returner] = field(default_factory=list)

    def gateways(self, *services: str, interrupt: bool = False) -> Gateways:
        return Gateways("site.py", self.read()["llm-1"], services, interrupt)

    def read(self) -> Mapping[str, SiteHost]:
        declared = [HostData(name, data, []) for name, data in self.hosts.items()]
        return read_site(declared, site_rules=no_site_rules)

    def load_inventory(self, _: str) -> list[Any]:
        return [
            SimpleNamespace(name=name, data=SimpleNamespace(dict=lambda data=data: data))
            for name, data in self.hosts.items()
        ]

    def checked_site(self, _: Any, hosts: list[Any]) -> Mapping[str, SiteHost]:
        names = {each.name for each in hosts}
        return {name: host for name, host in self.read().items() if name in names}

    @contextmanager
    def connected(self, _: str, names: list[str]) -> Iterator[Any]:
        yield SimpleNamespace(active_hosts={*map(_Host, names)}), None

    def run_locked(self, _: Any, calls: Mapping[Any, Any]) -> dict[str, list[str]]:
        for host, call in calls.items():
            self.asked.append((host.name, call.options["undo"]))
            self.returners.append(call.options["returner"])
            assert call.options["by"] is Drained.BY_TRAINING and call.arguments[0] == ("llm-1",)
        return {
            host.name: [self.refusing[host.name]]
            for host, call in calls.items()
            if host.name in self.refusing and not call.options["undo"]
        }


@dataclass(frozen=True)
class _Host:
    name: str


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("GATEWAY_KEY", "llmhost-" + "a" * 64)
    server = {"services": ["redis"], "api_clients": [CLIENT]}
    found = Site(
        {
            "gate-1": gate("vllm"),
            "gate-2": gate("vllm", "ollama"),
            "gate-3": gate("ollama"),
            "gate-4": gate("vllm", servers=TWO[1:]),
            "llm-1": server,
            "llm-2": server,
        }
    )
    for name in ("load_inventory", "checked_site"):
        monkeypatch.setattr(train_drain, name, getattr(found, name))
    monkeypatch.setattr(train_drain, "connected", found.connected)
    monkeypatch.setattr(train_drain, "run_locked", found.run_locked)
    return found


def test_gateways_of_what_is_stopped_drain_the_host_and_stay_so(site: Site) -> None:
    with site.gateways("vllm").drained():
        assert site.asked == [("gate-1", False), ("gate-2", False)]
    assert len(site.asked) == 2
    questions = [json.loads(each.files[1].data) for each in site.returners]
    assert [each["paths"] for each in questions] == [["/_llmhost/stopped/vllm"]] * 2


@pytest.mark.parametrize("services", [(), ("redis",)])
def test_nothing_is_drained_for_what_no_gateway_passes_on(
    site: Site, services: tuple[str, ...]
) -> None:
    with site.gateways(*services).drained():
        pass
    assert not site.asked


def test_training_that_does_not_begin_returns_the_host(site: Site) -> None:
    with pytest.raises(RuntimeError), site.gateways("ollama").drained():
        raise RuntimeError
    assert site.asked == [
        ("gate-2", False),
        ("gate-3", False),
        ("gate-2", True),
        ("gate-3", True),
    ]


def test_gateway_that_refuses_ends_it_before_anything_stops(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.refusing = {"gate-2": "llm-1 is the last server that takes requests"}
    with pytest.raises(typer.Exit), site.gateways("vllm").drained():
        raise AssertionError
    printed = capsys.readouterr().err
    assert "gate-2: llm-1 is the last server that takes requests" in printed
    assert "--interrupt" in printed
    assert site.asked[2:] == [("gate-1", True)]


def test_operator_may_interrupt_the_requests(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.refusing = {"gate-2": "llm-1 is the last server that takes requests"}
    began = False
    with site.gateways("vllm", interrupt=True).drained():
        began = True
    assert began and len(site.asked) == 2
    assert "gate-2: llm-1 is the last server" in capsys.readouterr().err


@pytest.mark.parametrize("interrupt", [False, True])
def test_member_that_does_not_answer_itself_is_no_server_that_returns(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], interrupt: bool
) -> None:
    """The head has no mark of what another member stops: the gateway would return it at once."""
    monkeypatch.setattr(train_drain, "head_of", lambda *_: "llm-1")
    member = Gateways("site.py", site.read()["llm-2"], ["vllm"], interrupt)
    if interrupt:
        with member.drained():
            pass
    else:
        with pytest.raises(typer.Exit), member.drained():
            raise AssertionError
        printed = capsys.readouterr().err
        assert "llm-2 computes for llm-1" in printed and "--interrupt" in printed
    assert not site.asked


# --- The operation


def drained(
    site: Site, monkeypatch: pytest.MonkeyPatch, marks: Mapping[str, Drained], *, undo: bool = False
) -> list[str]:
    """The commands of the operation on a converged gateway with these marks."""
    target = site.read()["gate-1"]
    settings, places = target.settings, tree.NginxPaths()
    servers = tree.pool(settings)
    files = tree.configuration(settings, places)
    host = SimpleNamespace(name="gate-1", state=SimpleNamespace(is_executing=False))
    monkeypatch.setattr(nginx, "host", host)
    for name in ("note", "explain"):
        monkeypatch.setattr(nginx, name, lambda *_: None)
    port = settings.gateway.status_port
    desired = nginx._DesiredState(files, places.own, port, None, servers)
    made, _ = desired.tree(NginxState(), marks)
    paths = {
        f.path: PathState("file", "root", "root", f.mode, 0.0, f.sha256) for f in made.all_files
    }
    paths[places.own] = PathState("directory", "root", "root", "0755", 0.0)
    state = NginxState(paths, True, "enabled", made.digest)
    monkeypatch.setattr(nginx, "get_fact", lambda *_, **__: state)
    program = returner(settings, settings.gateway.upstreams[0], ["vllm"], patience=1, lock="/x")
    body: Any = nginx.drain
    options = {"directory": places.own, "status_port": port, "tls": None, "pool": servers}
    more = {"by": Drained.BY_TRAINING, "returner": program, "undo": undo}
    return [str(each) for each in body._inner(("llm-1",), *files, **options, **more)]


def test_program_that_returns_the_server_is_started_before_the_drain(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = drained(site, monkeypatch, {})
    assert "systemctl enable -q llmhost-return-llm-1.service" in first
    assert others and "reload nginx" in others[-1]


def test_program_is_started_again_for_a_server_that_is_still_drained(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    [only] = drained(site, monkeypatch, {"llm-1": Drained.BY_TRAINING})
    assert "llmhost-return-llm-1.service" in only


def test_server_that_a_person_drained_stays_theirs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drained(site, monkeypatch, {"llm-1": Drained.BY_HAND}) == []


def test_return_needs_no_program(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = drained(site, monkeypatch, {"llm-1": Drained.BY_TRAINING}, undo=True)
    assert commands and not any("llmhost-return" in each for each in commands)


def test_program_is_complete_and_for_root(site: Site) -> None:
    target = site.read()["gate-1"]
    [server, _] = target.settings.gateway.upstreams
    program = returner(target.settings, server, ["vllm"], patience=1, lock="/run/lock")
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(program.archive))) as tar:
        modes = {each.name.lstrip("/"): each.mode for each in tar.getmembers()}
    home = "var/lib/llmhost/returning/llm-1"
    assert modes == {
        f"{home}/return.py": 0o600,
        f"{home}/question.json": 0o600,
        "etc/systemd/system/llmhost-return-llm-1.service": 0o644,
    }
    subprocess.run(["sh", "-nc", program.start_script], check=True)
    unit = program.files[2].data.decode()
    [command] = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert shlex.split(command)[-2:] == [f"/{home}/return.py", f"/{home}"]
    question = json.loads(program.files[1].data)
    assert question["mark_text"] == BY_TRAINING
    assert question["mark"] == "/etc/nginx/llmhost/llm-1.drained"


def test_patience_begins_again_for_a_server_that_is_still_drained(
    site: Site, tmp_path: Path
) -> None:
    """Its training did not begin, and is tried again after ten minutes."""
    target = site.read()["gate-1"]
    [server, _] = target.settings.gateway.upstreams
    program = returner(target.settings, server, ["vllm"], patience=720, lock="/run/lock")
    mark = tmp_path / "etc/nginx/llmhost/llm-1.drained"
    mark.parent.mkdir(parents=True)
    mark.write_text(BY_TRAINING)
    os.utime(mark, (1, 1))
    script = program.start_script.replace("/etc/nginx", f"{tmp_path}/etc/nginx")
    script = script.replace("/var/lib", f"{tmp_path}/var/lib").replace("-C /", f"-C {tmp_path}")
    script = f"systemctl() {{ true; }}\n{script}".replace(" --same-owner", "")
    subprocess.run(["sh", "-c", script], input=program.archive, text=True, check=True)
    assert time.time() - mark.stat().st_mtime < 60
    mark.unlink()
    subprocess.run(["sh", "-c", script], input=program.archive, text=True, check=True)
    assert not mark.exists()


def test_program_does_not_remove_what_a_new_drain_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain has the lock while it writes the program, and restarts it then."""
    spec = importlib.util.spec_from_file_location("returning", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    removed: list[object] = []
    monkeypatch.setattr(module, "remove", removed.append)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    question = SimpleNamespace(lock=tmp_path / "lock")
    with module.locked(question):
        ending = threading.Thread(target=module.end, args=(question,))
        ending.start()
        time.sleep(0.5)
        assert not removed
    ending.join(10)
    assert removed == [question]
