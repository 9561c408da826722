"""Backups of a real Redis by the real restic: what is restored answers as before, or nothing
changes. Docker is a double here; tests/integration/test_site_services.py has the real one."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.resources import FILES
from testbed import environments
from tests.integration.local_gateway import free_ports

pytestmark = pytest.mark.machines
longer = pytest.mark.backup
DOUBLE = Path(__file__).parents[1] / "doubles/docker_of_redis.py"
SCRIPT = FILES / "backup/host.py"
RECORDS = {f"key-{number}": f"value {number * 7919}" for number in range(2000)}
PASSWORD = "a password"
Json = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """A directory with a running Redis, as one host has it."""

    directory: Path
    repository: Path

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.directory}/bin:{os.environ['PATH']}"
        cache = str(self.directory / "cache")
        return {**os.environ, "PATH": path, "SITE": str(self.directory), "RESTIC_CACHE_DIR": cache}

    @property
    def stage(self) -> Path:
        return self.directory / "volumes/llmhost_redis-data/llmhost-restore"

    def docker(self, *words: str) -> str:
        command = [str(self.directory / "bin/docker"), *words, "llmhost-redis-1"]
        ran = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        )
        return ran.stdout.strip()

    @property
    def state(self) -> str:
        return self.docker("inspect", "--format", "{{.State.Status}}")

    def redis(self, *words: str, given: str = "") -> str:
        port = (self.directory / "port").read_text()
        ran = subprocess.run(
            ["redis-cli", "-p", port, *words],
            input=given,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return ran.stdout.strip()

    def write(self, records: dict[str, str]) -> None:
        self.redis(given="".join(f'set {key} "{value}"\n' for key, value in records.items()))

    @property
    def records(self) -> dict[str, str]:
        keys = self.redis("keys", "*").split()
        values = self.redis("mget", *keys).splitlines() if keys else []
        return dict(zip(keys, values, strict=True))

    def cut_power(self) -> None:
        """End the server at once, and start it on what is in its volume."""
        os.kill(int((self.directory / "pid").read_text()), signal.SIGKILL)
        time.sleep(0.1)
        self.docker("restart")
        wait_for(lambda: self.redis("ping") == "PONG")

    def start(self, do: str, **more: object) -> "subprocess.Popen[str]":
        asked = {
            "do": do,
            "repository": str(self.repository),
            "host": "here",
            "from": "here",
            "snapshot": "",
            "drill": False,
            "create": False,
            "keep_days": 30,
            "start_seconds": 10,
            "record": str(self.directory / "state/backup.json"),
            "lock": str(self.directory / "deploy.lock"),
            "lock_seconds": 0,
            "owner": "{}",
            "volumes": {"llmhost_redis-data": "llmhost-redis-1", "llmhost_x": "llmhost-x-1"},
            **more,
        }
        password = asked.pop("password", PASSWORD)
        process = subprocess.Popen(
            [sys.executable, "-I", str(SCRIPT), json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        assert process.stdin
        process.stdin.write(json.dumps({"RESTIC_PASSWORD": password}))
        process.stdin.close()
        process.stdin = None
        return process

    def ask(self, do: str, **more: object) -> Json:
        output, errors = self.start(do, **more).communicate(timeout=120)
        assert not errors, errors
        found: Json = json.loads(output)
        return found

    def refused(self, do: str, **more: object) -> str:
        process = self.start(do, **more)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 1 and not output, output
        assert len(errors.splitlines()) == 1, errors
        return errors.strip()

    def slow(self, program: str, condition: str) -> None:
        """Let a program hang, while the file `slow` exists, if a shell's condition is true."""
        real = shutil.which(program)
        text = f'#!/bin/sh\nif {condition}; then while [ -e "$SITE/slow" ]; do sleep 0.05; done; fi'
        (self.directory / "bin" / program).write_text(f'{text}\nexec {real} "$@"\n')
        (self.directory / "bin" / program).chmod(0o755)
        (self.directory / "slow").touch()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 20 s")


def new_server(directory: Path, repository: Path) -> Server:
    (directory / "volumes/llmhost_redis-data/_data").mkdir(parents=True)
    (directory / "bin").mkdir()
    (directory / "bin/docker").write_text(f'#!/bin/sh\nexec {sys.executable} {DOUBLE} "$@"\n')
    (directory / "bin/docker").chmod(0o755)
    (directory / "port").write_text(str(free_ports(1)[0]))
    server = Server(directory, repository)
    server.docker("restart")
    wait_for(lambda: server.redis("ping") == "PONG")
    return server


def end(server: Server) -> None:
    for file in ("hang", "slow"):
        (server.directory / file).unlink(missing_ok=True)
    with suppress(ProcessLookupError):  # a test ended it
        os.kill(int((server.directory / "pid").read_text()), signal.SIGKILL)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with records, and one backup of them."""
    server = new_server(tmp_path / "here", tmp_path / "repository")
    server.write(RECORDS)
    server.ask("backup", create=True)
    yield server
    end(server)


def test_every_record_is_restored_and_none_of_later(server: Server) -> None:
    noted = json.loads((server.directory / "state/backup.json").read_text())
    assert abs(noted["time"] - time.time()) < 120 and noted["snapshot"]
    server.write({"later": "x", "key-7": "changed"})
    result = server.ask("restore")
    assert server.records == RECORDS and server.state == "running"
    assert [*result["volumes"]] == ["llmhost_redis-data"] and not server.stage.exists()
    server.write({"after": "y"})
    server.cut_power()
    assert server.records == {**RECORDS, "after": "y"}


@longer
def test_another_host_gets_the_data_of_one_that_is_gone(server: Server, tmp_path: Path) -> None:
    shutil.rmtree(server.directory / "volumes")
    other = new_server(tmp_path / "elsewhere", server.repository)
    try:
        other.write({"own": "z"})
        assert other.refused("restore", **{"from": "elsewhere"}).startswith(
            "the repository has no backup of elsewhere"
        )
        assert other.records == {"own": "z"}
        other.ask("restore", host="elsewhere")
        assert other.records == RECORDS
    finally:
        end(other)


@longer
def test_earlier_backup_is_restored_by_its_id(server: Server) -> None:
    [first] = server.ask("listed")["snapshots"]
    assert (first["host"], first["volumes"]) == ("here", ["llmhost_redis-data"])
    server.redis("flushall")
    second = server.ask("backup")
    assert len(server.ask("listed")["snapshots"]) == 2
    server.ask("restore", snapshot=first["snapshot"])
    assert server.records == RECORDS
    server.ask("restore", snapshot=second["snapshot"])
    assert server.records == {}


@longer
def test_drill_restores_everything_and_changes_nothing(server: Server) -> None:
    server.write({"later": "x"})
    result = server.ask("restore", drill=True)
    size = result["volumes"]["llmhost_redis-data"]
    assert size["files"] >= 2 and size["bytes"] > 2000 * 10
    assert server.records == {**RECORDS, "later": "x"} and not server.stage.exists()


@longer
def test_old_backups_are_removed_and_those_of_other_hosts_kept(server: Server) -> None:
    environment = {**server.environment, "RESTIC_PASSWORD": PASSWORD}
    for host in ("here", "other"):
        command = ["restic", "-r", str(server.repository), "backup", "--host", host]
        command += ["--tag", "llmhost", "--time", "2020-01-01 00:00:00", str(SCRIPT)]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    server.ask("backup")
    hosts = [each["host"] for each in server.ask("listed")["snapshots"]]
    assert sorted(hosts) == ["here", "here", "other"]


@longer
@pytest.mark.parametrize("do", ["backup", "restore"])
def test_wrong_password_or_repository_is_refused(server: Server, tmp_path: Path, do: str) -> None:
    assert "another password" in server.refused(do, password="no")
    missing = tmp_path / "not-mounted"
    assert "has no repository; if its disk is mounted" in server.refused(
        do, repository=str(missing)
    )
    assert not missing.exists() and server.records == RECORDS and server.state == "running"


@longer
def test_damaged_repository_is_not_restored(server: Server) -> None:
    packs = [path for path in (server.repository / "data").rglob("*") if path.is_file()]
    data = max(packs, key=lambda path: path.stat().st_size)
    data.chmod(0o600)
    data.write_bytes(b"0123456789" + data.read_bytes()[10:])
    shutil.rmtree(server.directory / "cache")
    server.write({"later": "x"})
    assert server.refused("restore").startswith("restic restore failed: ")
    assert server.records == {**RECORDS, "later": "x"} and not server.stage.exists()


@longer
def test_locked_host_is_left_alone(server: Server) -> None:
    server.write({"later": "x"})
    with (server.directory / "deploy.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for do in ("backup", "restore"):
            assert "another run has locked this host" in server.refused(do)
    assert server.records == {**RECORDS, "later": "x"} and server.state == "running"


@longer
def test_killed_backup_leaves_no_service_paused(server: Server) -> None:
    server.slow("restic", '[ "$1 $4" = "backup llmhost" ]')
    process = server.start("backup")
    wait_for(lambda: server.state == "paused")
    process.kill()
    process.wait(timeout=10)
    wait_for(lambda: server.state == "running")
    assert server.records == RECORDS
    (server.directory / "slow").unlink()
    server.ask("backup")
    assert len(server.ask("listed")["snapshots"]) == 2  # the killed one made none
    drafts = subprocess.run(
        ["restic", "-r", str(server.repository), "snapshots", "--json", "--tag", "llmhost-draft"],
        env={**server.environment, "RESTIC_PASSWORD": PASSWORD},
        capture_output=True,
        timeout=60,
    )
    assert json.loads(drafts.stdout) in (None, [])


@longer
def test_restore_killed_while_it_reads_leaves_the_old_data(server: Server) -> None:
    server.write({"later": "x"})
    server.slow("restic", '[ "$1" = restore ]')
    process = server.start("restore")
    wait_for(server.stage.exists)
    process.kill()
    process.wait(timeout=10)
    assert server.records == {**RECORDS, "later": "x"}
    server.cut_power()
    assert server.records == {**RECORDS, "later": "x"}
    (server.directory / "slow").unlink()
    server.ask("restore")
    assert server.records == RECORDS


@longer
def test_power_cut_after_the_exchange_leaves_the_restored_data(server: Server) -> None:
    server.write({"later": "x"})
    (server.directory / "hang").touch()  # of the double of Docker: it does not restart
    process = server.start("restore")
    wait_for((server.stage / "exchanging").exists)
    time.sleep(0.5)
    process.kill()
    process.wait(timeout=10)
    assert server.records == {**RECORDS, "later": "x"}  # the service has its data open
    (server.directory / "hang").unlink()
    server.cut_power()
    assert server.records == RECORDS
    server.ask("restore", drill=True)
    assert server.records == RECORDS and not server.stage.exists()


@longer
def test_service_that_gets_unhealthy_gets_its_data_back(server: Server) -> None:
    server.write({"poison": "1"})
    server.ask("backup")
    server.redis("del", "poison")
    sentence = server.refused("restore", start_seconds=1)
    assert "llmhost-redis-1 did not become healthy; the former data is restored" in sentence
    wait_for(lambda: server.redis("ping") == "PONG")
    assert server.records == RECORDS and not server.stage.exists()


@longer
def test_stopped_service_stays_stopped_and_has_the_data_at_its_start(server: Server) -> None:
    server.write({"later": "x"})
    os.kill(int((server.directory / "pid").read_text()), signal.SIGTERM)
    wait_for(lambda: server.state == "exited")
    server.ask("restore")
    assert server.state == "exited"
    server.docker("restart")
    wait_for(lambda: server.redis("ping") == "PONG")
    assert server.records == RECORDS


@longer
def test_full_disk_is_refused_before_anything_changes(server: Server, tmp_path: Path) -> None:
    size = 8 << 20
    (server.directory / "volumes/llmhost_redis-data/_data/blob").write_bytes(os.urandom(size))
    server.ask("backup")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "small", small], check=True)
    try:
        other = new_server(small / "site", server.repository)
        try:
            other.write({"own": "z"})
            assert "the backup needs 0.0 GiB in addition to the current data" in other.refused(
                "restore"
            )
            assert other.records == {"own": "z"}
        finally:
            end(other)
            time.sleep(0.2)
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URL of a double of S3: moto, which keeps objects in its memory."""
    port = free_ports(1)[0]
    program = str(environments.installed("moto") / "bin/moto_server")
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([program, "--port", str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: answers(url))
            yield url
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.TransportError:
        return False


@longer
def test_object_store_keeps_backups_encrypted(s3: str, tmp_path: Path) -> None:
    os.environ |= {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-key"}
    repository = f"s3:{s3}/backups"
    server = new_server(tmp_path / "here", tmp_path / "unused")
    other = new_server(tmp_path / "elsewhere", tmp_path / "unused")
    try:
        server.write(RECORDS)
        refused = server.refused("backup", repository=repository)
        assert f"{repository} has no repository" in refused
        server.ask("backup", repository=repository, create=True)
        server.ask("backup", repository=repository)
        assert len(server.ask("listed", repository=repository)["snapshots"]) == 2
        listed = httpx.get(f"{s3}/backups", params={"list-type": "2"}).text
        keys = re.findall(r"<Key>([^<]+)</Key>", listed)
        assert any(key.startswith("data/") for key in keys)
        # moto hands a private object to whoever names an account.
        account = {"Authorization": "AWS4-HMAC-SHA256 Credential=an-id/20260101/x/s3/aws4_request"}
        found = [httpx.get(f"{s3}/backups/{key}", headers=account) for key in keys]
        stored = b"".join(each.raise_for_status().content for each in found)
        assert len(stored) > 2000 and b"value 7919" not in stored and b"key-" not in stored
        wrong = server.refused("backup", repository=repository, password="another")
        assert wrong == "the repository has another password than backup_password"
        shutil.rmtree(server.directory / "volumes")
        other.ask("restore", repository=repository)
        assert other.records == RECORDS
    finally:
        end(server)
        end(other)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del os.environ[name]
