"""`llmhost status`: the probe on this machine, its reports, and the schema of --json."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from rich.console import Console

from llmhost.cli.status import exit_status
from llmhost.cli.status_table import shown
from llmhost.docs.schemas import schema
from llmhost.gateway.x509 import new_authority
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import HostData, no_rules, no_site_rules, read_site
from llmhost.resources import FILES
from llmhost.status.probe import probe_command
from llmhost.status.report import SCHEMA, HostStatus, StatusReport, host_status, unreadable
from tests.programs import running

ROOT = Path(__file__).parents[2]
LLMHOST = Path(sys.executable).with_name("llmhost")
NOW = datetime.now(UTC).replace(microsecond=0)
# As Docker 20.10 and 28 print it.
CONTAINER = {
    "service": "redis",
    "state": "running",
    "health": "healthy",
    "started": (NOW - timedelta(days=3)).isoformat()[:19] + ".123456789Z",
    "restarts": 1,
    "exit_code": 0,
    "error": "",
}
GPU = "0, NVIDIA L4, 5120, 23034, 35, 61, 48.20, 72.00"
RUN = {
    "run": "1",
    "by": "ann@desk",
    "begun": "2026-11-28T12:00:00Z",
    "version": "0.1.0",
    "revision": "1234abcd" * 5,
    "modified": False,
    "process": 1,
    "result": "done",
    "changed": ["System | Configure apt and its automatic updates"],
    "failed": "",
}


def line(ago: float, **more: object) -> str:
    """A line of the gateway's log that ended some seconds ago."""
    request = {
        "time": (datetime.now().astimezone() - timedelta(seconds=ago)).isoformat(
            timespec="seconds"
        ),
        "id": "1",
        "client": "app",
        "address": "10.0.0.9",
        "method": "POST",
        "route": "/v1/completions",
        "status": 200,
        "refusal": "",
        "bytes_in": 300,
        "bytes_out": 900,
        "first_byte_seconds": "0.100",
        "seconds": 1.5,
        "complete": "OK",
    }
    return json.dumps({**request, **more})


class Machine:
    """This machine, with a docker and an nvidia-smi that print what real ones printed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked: dict[str, Any] = {
            "project": "llmhost",
            "stopped": str(directory / "stopped"),
            "history": str(directory / "history.jsonl"),
            "receipt": str(directory / "receipt.json"),
            "backup": str(directory / "backup.json"),
            "certificate": "",
            "log": str(directory / "gateway.json"),
            "seconds": 300,
            "paths": ["/", str(directory)],
            "units": [],
        }
        self.log(line(1))
        (directory / "history.jsonl").write_text(json.dumps(RUN) + "\n")
        (directory / "bin").mkdir()
        self.containers(CONTAINER)
        self.program("nvidia-smi", f"echo '{GPU}'")

    def program(self, name: str, script: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def containers(self, *containers: dict[str, Any]) -> None:
        listed = "\n".join(map(json.dumps, containers))
        ids = "\n".join(str(number) for number in range(len(containers)))
        script = f"case $1 in ps) cat <<'E'\n{ids}\nE\n;; *) cat <<'E'\n{listed}\nE\n;; esac"
        self.program("docker", script)

    def log(self, *lines: str, name: str = "gateway.json") -> None:
        (self.directory / name).write_text("".join(f"{each}\n" for each in lines))

    def probe(self) -> dict[str, Any]:
        path = f"{self.directory}/bin:{os.environ['PATH']}"
        script = str(FILES / "status/probe.py")
        command = [sys.executable, "-I", script, json.dumps(self.asked)]
        ran = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def status(self, **data: object) -> HostStatus:
        return host_status(host(**data), json.dumps(self.probe()))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def host(**data: object) -> SiteHost:
    declared = {
        "services": ["redis"],
        "api_clients": [{"name": "app", "sha256": "cd" * 32}],
        **data,
    }
    hosts = [HostData("server", declared)]
    return read_site(hosts, rules=no_rules, site_rules=no_site_rules)["server"]


def test_healthy_server_needs_no_attention(machine: Machine) -> None:
    status = machine.status()
    assert (status.status, status.attention) == ("ok", ())
    [redis] = status.services
    assert (redis.name, redis.state, redis.restarts) == ("redis", "healthy", 1)
    age = timedelta(seconds=redis.uptime_seconds or 0)
    assert redis.version and timedelta(days=3) <= age < timedelta(days=3, hours=3)
    [gpu] = status.gpus
    assert (gpu.name, gpu.memory_used_mib, gpu.power_limit_watts) == ("NVIDIA L4", 5120, 72)
    assert status.deploy and (status.deploy.by, status.deploy.current) == ("ann@desk", False)
    assert status.kernel == os.uname().release and status.uptime_seconds > 0
    assert len(status.disks) in (1, 2) and status.disks[0].size_bytes > status.disks[0].free_bytes


def test_requests_of_the_last_minutes_are_counted_across_a_rotation(machine: Machine) -> None:
    first = [line(1, first_byte_seconds=f"0.{number:03}") for number in range(1, 101)]
    machine.log(
        *first,
        line(1, status=502, refusal="engine_silent", first_byte_seconds="-"),
        line(1, status=401, refusal="key_unknown", first_byte_seconds=""),
        line(1, status=400, first_byte_seconds="0.001"),
        line(1, status=499, complete="", first_byte_seconds="-"),
        line(1, complete="", first_byte_seconds="0.050"),
        line(1, method="GET", route="/v1/models", first_byte_seconds="9.0"),
        line(1, route="ui:open_webui", first_byte_seconds="9.0"),
        "not JSON",
    )
    machine.log(line(400), line(100, first_byte_seconds="5.0, 0.050"), name="gateway.json.1")
    requests = machine.status().requests
    assert requests and (requests.answered, requests.errors) == (102, 2)
    assert (requests.refused, requests.aborted) == (1, 2)
    assert (requests.first_byte_p50_seconds, requests.first_byte_p95_seconds) == (0.05, 0.095)


def test_log_longer_than_a_block_is_read_from_its_end(machine: Machine) -> None:
    machine.log(*[line(900)] * 5000, *[line(1)] * 5000)
    requests = machine.status().requests
    assert requests and requests.answered == 5000


def test_service_stopped_on_purpose_names_who_and_when(machine: Machine) -> None:
    mark = "stopped by ann@desk at 2026-11-28T12:00:00Z"
    (machine.directory / "stopped").mkdir()
    (machine.directory / "stopped/redis").write_text(f"{mark}\n")
    machine.containers({**CONTAINER, "state": "exited", "health": "unhealthy"})
    status = machine.status()
    assert (status.services[0].state, status.services[0].stopped) == ("stopped", mark)
    assert status.status == "ok" and mark in text(status)
    machine.containers(CONTAINER)
    assert machine.status().attention == (f"redis runs, although it was {mark}",)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"health": "unhealthy"}, "redis is unhealthy"),
        (
            {"state": "restarting", "exit_code": 137},
            "redis is restarting: its process ended with 137",
        ),
        ({"state": "exited", "error": "no such GPU"}, "redis is exited: no such GPU"),
        ({"service": "other"}, "redis is missing"),
    ],
)
def test_service_that_does_not_work_needs_attention(
    machine: Machine, changes: dict[str, Any], sentence: str
) -> None:
    machine.containers({**CONTAINER, **changes})
    status = machine.status()
    assert (status.status, status.attention) == ("attention", (sentence,))


def test_silent_docker_and_broken_gpu_are_reported(machine: Machine) -> None:
    machine.program("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    machine.program("nvidia-smi", "echo 'Failed to initialize NVML: Driver mismatch'; exit 18")
    status = machine.status()
    assert status.services[0].state == "unknown"
    assert status.attention == (
        "Docker does not answer: Cannot connect to the Docker daemon",
        "nvidia-smi fails: Failed to initialize NVML: Driver mismatch",
    )
    machine.program("nvidia-smi", "echo '0, NVIDIA L4, [GPU is lost], 1, 2, 3, 4, [N/A]'")
    [gpu] = machine.status().gpus
    assert gpu.memory_used_mib is None and gpu.power_limit_watts is None
    assert "–" in text(replace(status, gpus=(gpu,)))


def test_expiry_of_certificate_and_keys_is_reported(machine: Machine) -> None:
    certificate = machine.directory / "tls.pem"
    certificate.write_bytes(new_authority(NOW - timedelta(days=365 * 20 - 5)).certificate)
    ends = subprocess.run(
        ["openssl", "x509", "-enddate", "-noout", "-dateopt", "iso_8601", "-in", certificate],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    machine.asked["certificate"] = str(certificate)
    soon, later = NOW + timedelta(days=3), NOW + timedelta(days=300)
    clients = [
        {"name": "late", "sha256": "1" * 64, "expires": later.isoformat()},
        {"name": "soon", "sha256": "2" * 64, "expires": soon.isoformat()},
        {"name": "past", "sha256": "3" * 64, "expires": "2026-01-01T00:00:00Z"},
        {"name": "gone", "sha256": "4" * 64, "expires": soon.isoformat(), "revoked": True},
    ]
    status = machine.status(api_clients=clients)
    assert ends.removeprefix("notAfter=").replace(" ", "T") == status.certificate_expires
    assert status.keys_expire and [*status.keys_expire] == ["past", "soon", "late"]
    attention = " ".join(status.attention)
    assert "the key of past has expired 2026-01-01 00:00 UTC" in attention
    assert f"the key of soon expires {soon:%Y-%m-%d %H:%M} UTC" in attention
    assert "late" not in attention and "gone" not in attention


def test_pending_reboot_full_disk_and_failed_deploy_need_attention(machine: Machine) -> None:
    found = machine.probe()
    found |= {"reboot": ["linux-image-amd64"], "run": {**RUN, "result": "failed"}}
    found["disks"] = [{"path": "/", "size_bytes": 100 << 30, "free_bytes": 5 << 30}]
    assert host_status(host(), json.dumps(found)).attention == (
        "/ has only 5.0 GiB of 100.0 GiB left",
        "a reboot is pending (linux-image-amd64)",
        "the last deploy failed: deploy again",
    )


@pytest.mark.parametrize(
    ("days", "sentences"),
    [
        (None, ["the last backup has not been made yet: llmhost backup INVENTORY server"]),
        (1, []),
        (3, ["the last backup is 3 days old: llmhost backup INVENTORY server"]),
    ],
)
def test_late_backup_needs_attention(
    machine: Machine, days: int | None, sentences: list[str]
) -> None:
    declared = {"redis_persistent": True, "backup_repository": "/mnt/backup"}
    if days is not None:
        made = int((NOW - timedelta(days=days)).timestamp())
        (machine.directory / "backup.json").write_text(json.dumps({"time": made, "snapshot": "1"}))
    status = machine.status(**declared)
    assert [each for each in status.attention if "backup" in each] == sentences
    assert (status.last_backup is None) is (days is None)
    assert ("backup of 20" in text(status)) is (days is not None)
    # Nobody waits for a backup of a host that declares none.
    assert not [each for each in machine.status().attention if "backup" in each]


def test_host_without_anything_is_reported_and_not_an_error(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "history.jsonl").unlink()
    (tmp_path / "gateway.json").unlink()
    machine.program("docker", "exec 2>&1; echo docker is not there; exit 1")
    status = machine.status()
    assert "no deploy has changed this host yet" in status.attention
    assert status.requests is None and status.status == "attention"


def test_question_contains_no_secret_and_runs_in_a_shell() -> None:
    command = probe_command(host(gateway_tls="off"))
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "cd" * 32 not in command
    missing = subprocess.run(
        ["/bin/sh", "-c", command], env={"PATH": "/nowhere"}, capture_output=True, text=True
    )
    assert missing.stderr == "this host has no python3: deploy it first\n"


def text(*hosts: HostStatus) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(shown(hosts))
    return capture.get()


def test_table_shows_services_gpus_and_requests(machine: Machine) -> None:
    printed = text(machine.status(), unreadable("far", "timed out"))
    for expected in (
        "redis",
        "healthy",
        "3 days",
        "████",
        "5.0 GiB of 22.5 GiB",
        "61 °C",
        "ann@desk",
    ):
        assert expected in printed
    assert "1 answered; first byte p50 100 ms" in printed and "far: timed out" in printed


def test_exit_status_is_the_worst_of_all_hosts() -> None:
    fine = HostStatus("a", "ok")
    assert exit_status([fine]) == 0
    assert exit_status([fine, HostStatus("b", "attention")]) == 2
    assert exit_status([HostStatus("b", "attention"), unreadable("c", "x")]) == 1


def test_schema_of_the_output_is_documented(machine: Machine) -> None:
    described = json.loads((ROOT / "docs/status.schema.json").read_text())
    assert described == schema(StatusReport)
    report = StatusReport(SCHEMA, (machine.status(), unreadable("far", "timed out")))
    validator = jsonschema_rs.validator_for(described)
    printed = json.loads(json.dumps(asdict(report)))
    validator.validate(printed)
    printed["hosts"][0]["services"][0]["restarts"] = "many"
    assert not validator.is_valid(printed)


def test_unreachable_host_is_an_error_and_an_expired_key_is_not(tmp_path: Path) -> None:
    data = {"ssh_hostname": "127.0.0.1", "ssh_port": 1, "services": ["redis"]}
    expired = {"name": "app", "sha256": "cd" * 32, "expires": "2026-01-01T00:00:00Z"}
    site = tmp_path / "site.py"
    site.write_text(f"hosts = [('far', {data | {'api_clients': [expired]}!r})]\n")
    ran = subprocess.run([LLMHOST, "status", site, "--json"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (1, "")
    [far] = json.loads(ran.stdout)["hosts"]
    assert far["status"] == "error" and "no SSH connection" in far["error"]


def test_watching_refreshes_until_it_is_interrupted(tmp_path: Path) -> None:
    site = tmp_path / "site.py"
    clients = [{"name": "app", "sha256": "cd" * 32}]
    site.write_text(f"hosts = [('@local', {{'services': [], 'api_clients': {clients!r}}})]\n")
    controller, terminal = pty.openpty()
    command = [str(LLMHOST), "status", str(site), "--watch", "--interval", "1"]
    with running(command, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        printed = b""
        while printed.count(b"LLM server") < 2:
            assert select.select([controller], [], [], 60)[0], printed
            printed += os.read(controller, 4096)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal ends with the process
            while os.read(controller, 4096):
                pass
        # As without --watch; 2 unless this machine is deployed.
        assert process.wait(30) in (0, 2)
    os.close(controller)


def test_gpus_are_read_from_nvidia_smi_with_fields_that_it_knows(machine: Machine) -> None:
    """The double refuses unknown fields, as the real one does."""
    double = (ROOT / "tests/doubles/nvidia/nvidia-smi").read_text()
    place = machine.directory
    (place / "gpus").write_text("0 GPU-1 0000:01:00.0 25769803776 300 0 NVIDIA L4\n")
    (place / "version").write_text("NVRM version: NVIDIA UNIX x86_64  580.95.05  Release\n")
    variables = {"GPUS": "gpus", "LOADED": "version", "STATE": "state"}
    exported = "".join(f"LLMHOST_DOUBLE_{key}={place}/{it}\n" for key, it in variables.items())
    machine.program("nvidia-smi", exported + double.replace("@VERSION@", "580.95.05"))
    [gpu] = machine.status().gpus
    assert (gpu.name, gpu.memory_total_mib, gpu.power_watts) == ("NVIDIA L4", 24576, 61.5)
    (place / "version").write_text("NVRM version: NVIDIA UNIX x86_64  570.1  Release\n")
    assert "nvidia-smi fails: Failed to initialize NVML" in machine.status().attention[0]
