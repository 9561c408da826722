"""The whole path of a gateway before several LLM servers: refused, deployed, verified, drained.

One machine is the gateway; the servers are doubles on it that answer in plain HTTP. The tests go
on from each other, in the order of the file.
"""

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmhost.gateway.keys import digest, new_key
from testbed import Client, Lan, Machine
from testbed.process import wait_until
from tests.programs import running

pytestmark = pytest.mark.machines
ROOT = Path(__file__).parents[2]
PORTS = {"llm-1": 9001, "llm-2": 9002}

# Answers with its own name; what is posted is answered at length, until /run/enough is there.
DOUBLE = """
import http.server, os, sys, time
class Double(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Server", sys.argv[1])
        self.end_headers()
        self.wfile.write(b"{}")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
        while not os.path.exists("/run/enough"):
            self.wfile.write(b" ")
            time.sleep(0.1)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Double).serve_forever()
"""


@dataclass(frozen=True)
class Site:
    """An inventory with one gateway, and what is needed to use it."""

    inventory: Path
    machine: Machine
    client: Client
    key: str
    env: dict[str, str]

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=600
        )

    def deploy(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.run("pyinfra", str(self.inventory), "deploy.py", "-y", *options)

    def changes(self) -> list[str]:
        report = json.loads(self.deploy("--json").stdout)
        return [each["name"] for each in report["results"]["operations"] if each["success"]]

    def curl(self, *arguments: str) -> list[str]:
        name = self.machine.name
        ca = self.inventory.parent / "ca/ca.crt"
        command = ["curl", "-sS", "-m", "200", "--cacert", str(ca), *arguments]
        command += ["--connect-to", f"{name}:8080:{self.machine.address}:8080"]
        return [*command, "-H", f"Authorization: Bearer {self.key}", f"https://{name}:8080"]

    def answered_by(self, count: int) -> Counter[str]:
        """Which servers answered so many requests."""
        command = self.curl("-o", "/dev/null", "-w", "%{http_code} %header{x-server}\n")
        command[-1] += f"/v1/models?n=[1-{count}]"
        return Counter(self.client.run(command).stdout.splitlines())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("gateways")
    key, gateway_key = new_key(), new_key()
    with Lan.create("gateways") as lan:
        machine = lan.machine("gate")
        data = {
            "gateway_upstreams": [
                {"name": name, "address": "127.0.0.1", "port": port} for name, port in PORTS.items()
            ],
            "gateway_upstream_services": ["llamacpp"],
            "gateway_upstream_key": "env:GATEWAY_KEY",
            "gateway_upstream_tls": "off",
            "gateway_ca_directory": str(place / "ca"),
            "api_clients": [{"name": "app", "sha256": digest(key)}],
        }
        inventory = place / "site.py"
        host = (machine.name, {"ssh_config_file": str(machine.ssh_config)})
        inventory.write_text(f"gateways = ([{host!r}], {data!r})\n")
        env = os.environ | {"GATEWAY_KEY": gateway_key, "LLMHOST_API_KEY": key}
        yield Site(inventory, machine, lan.client("outside"), key, env)


def test_servers_that_can_not_be_reached_are_told_before_anything_changes(site: Site) -> None:
    outcome = site.deploy()
    said = outcome.stdout + outcome.stderr
    assert outcome.returncode != 0
    assert "llm-1 accepts no connection at 127.0.0.1 port 9001" in said
    assert "llm-2 accepts no connection at 127.0.0.1 port 9002" in said
    assert "there" in site.machine.ssh("command -v nginx || echo there is none").stdout


def test_bare_machine_becomes_the_gateway_and_nothing_else(site: Site) -> None:
    for name, port in PORTS.items():
        start = f"systemd-run -q --unit={name} python3 -c {shlex.quote(DOUBLE)} {name} {port}"
        site.machine.ssh(start)
        listens = f"until : </dev/tcp/127.0.0.1/{port}; do sleep 0.1; done"
        site.machine.ssh(f"timeout 30 bash -c {shlex.quote(listens)} 2>/dev/null")
    outcome = site.deploy()
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert site.env["GATEWAY_KEY"] not in outcome.stdout + outcome.stderr
    assert site.changes() == []
    assert "none" in site.machine.ssh("command -v docker || echo none").stdout
    stat = site.machine.ssh("stat -c '%U %a' /etc/nginx/llmhost/upstream-key.conf").stdout
    assert stat.strip() == "root 600"


def test_requests_are_spread(site: Site) -> None:
    assert site.answered_by(10) == {"200 llm-1": 5, "200 llm-2": 5}


def test_verify_finds_it_as_declared(site: Site) -> None:
    outside = shlex.join(site.client.command([]))
    outcome = site.run(
        "llmhost", "verify", str(site.inventory), "--outside", outside, "--", "-q", "-rs"
    )
    assert outcome.returncode == 0, outcome.stdout
    assert "test_gateway.py" not in outcome.stdout, "a check of the gateway was skipped"


def test_drained_server_ends_what_it_has_and_is_told_about(site: Site) -> None:
    command = site.curl("-o", "/dev/null", "-w", "%header{x-server} %{http_code}", "-d", "{}")
    command[-1] += "/v1/embeddings"
    with running(site.client.command(command), stdout=subprocess.PIPE, text=True) as stream:
        assert wait_until(lambda: any(_is_streaming(site, port) for port in PORTS.values()), 30)
        [busy] = [name for name, port in PORTS.items() if _is_streaming(site, port)]
        drained = site.run("llmhost", "drain", busy, str(site.inventory), "--wait", "1")
        said = drained.stdout + drained.stderr
        assert drained.returncode == 2, said
        assert f"gate sends no new requests to {busy}" in said
        assert f"connections to {busy}: 1" in said
        [other] = PORTS.keys() - {busy}
        assert site.answered_by(6) == {f"200 {other}": 6}
        site.machine.ssh("touch /run/enough")
        assert stream.communicate(timeout=30)[0] == f"{busy} 200"
        assert stream.returncode == 0
    again = site.run("llmhost", "drain", busy, str(site.inventory))
    assert again.returncode == 0 and f"connections to {busy}: 0" in again.stdout
    last = site.run("llmhost", "drain", other, str(site.inventory))
    assert last.returncode == 1 and f"{other} is the last server" in last.stderr
    plan = site.run("llmhost", "plan", str(site.inventory))
    assert plan.returncode == 0 and f"{busy} is drained" in plan.stdout, plan.stdout + plan.stderr


def _is_streaming(site: Site, port: int) -> bool:
    """Whether there is a connection; the doubles end theirs with their answers."""
    listed = f"ss -Htn state established dst 127.0.0.1:{port}"
    return bool(site.machine.ssh(listed).stdout.strip())


def test_drain_waits_for_no_deploy_and_disturbs_none(site: Site) -> None:
    lock = ["ssh", "-F", str(site.machine.ssh_config), site.machine.name]
    lock.append("flock -F /run/llmhost/deploy.lock sh -c 'echo held; exec cat'")
    with running(lock, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as deploying:
        assert deploying.stdout and deploying.stdout.readline() == b"held\n"
        drained = site.run("llmhost", "drain", "llm-1", str(site.inventory))
        deploying.communicate()
    assert drained.returncode == 1 and "llmhost unlock" in drained.stderr, drained.stderr


def test_drain_is_in_the_history(site: Site) -> None:
    shown = site.run("llmhost", "history", str(site.inventory), "gate")
    assert "Drain llm-" in shown.stdout, shown.stdout + shown.stderr


def test_drained_server_may_be_switched_off_and_stays_drained(site: Site) -> None:
    plan = json.loads(site.run("llmhost", "plan", str(site.inventory), "--json").stdout)
    [note] = plan["hosts"][0]["notes"]
    drained = note.split()[0]
    site.machine.ssh(f"systemctl stop {drained}")
    assert site.changes() == []
    [other] = PORTS.keys() - {drained}
    assert site.answered_by(4) == {f"200 {other}": 4}
    start = f"systemd-run -q --unit={drained} python3 -c {shlex.quote(DOUBLE)}"
    site.machine.ssh(f"{start} {drained} {PORTS[drained]}; sleep 1")
    undone = site.run("llmhost", "drain", drained, str(site.inventory), "--undo")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert site.answered_by(8) == {"200 llm-1": 4, "200 llm-2": 4}
    assert site.changes() == []


def test_key_is_revoked_while_a_server_is_down(site: Site) -> None:
    before = site.inventory.read_text()
    site.machine.ssh("systemctl stop llm-1")
    try:
        site.inventory.write_text(
            before.replace("'name': 'app',", "'name': 'app', 'revoked': True,")
        )
        outcome = site.deploy()
        said = outcome.stdout + outcome.stderr
        assert outcome.returncode == 0, said
        assert "llm-1 accepts no connection at 127.0.0.1 port 9001" in said
        assert set(site.answered_by(2)) == {"401 "}
    finally:
        site.inventory.write_text(before)
        start = f"systemd-run -q --unit=llm-1 python3 -c {shlex.quote(DOUBLE)}"
        site.machine.ssh(f"{start} llm-1 {PORTS['llm-1']}; sleep 1")
    restored = site.deploy()
    assert restored.returncode == 0, restored.stdout + restored.stderr


def test_gateway_that_differs_is_not_deployed_by_a_drain(site: Site) -> None:
    site.machine.ssh("echo '# edited' >> /etc/nginx/nginx.conf")
    refused = site.run("llmhost", "drain", "llm-1", str(site.inventory))
    assert refused.returncode == 1
    assert "gate differs from its inventory" in refused.stderr
    assert site.answered_by(8) == {"200 llm-1": 4, "200 llm-2": 4}
