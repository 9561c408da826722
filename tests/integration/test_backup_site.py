"""A stack under the real Docker is backed up, lost, deployed again and restored: the real Redis and
Chroma answer with the same data."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.tasks.backup import schedule_backups
from llmhost.tasks.stack import run_stack
from testbed import Lan, Machine
from testbed.stores import push_stores, store_archive
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.harness import converge, deploy

pytestmark = [pytest.mark.machines, pytest.mark.backup]
LLMHOST = Path(sys.executable).with_name("llmhost")
DATABASE = "http://127.0.0.1:8001/api/v2/tenants/default_tenant/databases/default_database"
TEXTS = {f"text-{number}": [number / 200, 1.0] for number in range(200)}


@pytest.fixture(scope="module")
def docker(
    lan: Lan, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerSite]:
    with docker_site(lan, machine, tmp_path_factory.mktemp("site")) as found:
        machine.ssh("apt-get -q update && apt-get -y -q --no-install-recommends install restic")
        yield found


def ask(machine: Machine, method: str, path: str, body: Any = None) -> Any:
    curl = f"curl -sSf -X {method} -H 'Content-Type: application/json' --data @- {DATABASE}{path}"
    answer = machine.ssh(curl, input=json.dumps(body) if body is not None else "").stdout
    return json.loads(answer)


def texts(machine: Machine) -> dict[str, Any]:
    """The texts of every collection with their vectors, by id."""
    found: dict[str, Any] = {}
    for each in ask(machine, "GET", "/collections"):
        body = {"include": ["embeddings", "documents"], "limit": 1000}
        answer = ask(machine, "POST", f"/collections/{each['id']}/get", body)
        rows = zip(answer["documents"], answer["embeddings"], strict=True)
        found |= dict(zip(answer["ids"], rows, strict=True))
    return found


def redis(machine: Machine, words: str) -> str:
    return machine.ssh(f"docker exec llmhost-redis-1 redis-cli {words}").stdout.strip()


def llmhost(*words: str) -> str:
    ran = subprocess.run([str(LLMHOST), *words], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def data(docker: DockerSite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    image = push_stores(docker.registry)
    password = tmp_path_factory.mktemp("secrets") / "password"
    return {
        "services": ["redis", "chroma"],
        **{f"{service}_image": image for service in ("redis", "chroma")},
        "redis_persistent": True,
        "chroma_port": 8001,
        "chroma_open_files": 4096,
        "backup_repository": "/srv/backup",
        "backup_password": f"file:{password}",
        "api_clients": [{"name": "test", "sha256": "ab" * 32}],
    }


def inventory(machine: Machine, data: dict[str, Any], directory: Path) -> Path:
    site = directory / "site.py"
    host = {**data, "ssh_config_file": str(machine.ssh_config)}
    site.write_text(f"hosts = [({machine.name!r}, {host!r})]\n")
    return site


def test_lost_data_is_restored(docker: DockerSite, data: dict[str, Any], tmp_path: Path) -> None:
    machine = docker.machine
    site = inventory(machine, data, tmp_path)
    converge(machine, run_stack, read_settings(data))
    collection = ask(machine, "POST", "/collections", {"name": "texts"})["id"]
    body = {"ids": [*TEXTS], "embeddings": [*TEXTS.values()], "documents": [*TEXTS]}
    assert ask(machine, "POST", f"/collections/{collection}/add", body) == {}
    redis(machine, 'eval \'for i = 1, 500 do redis.call("set", "k" .. i, i) end\' 0')
    before = texts(machine)
    assert len(before) == len(TEXTS)

    said = llmhost("backup", str(site), "--create")
    assert "llmhost_chroma-data, llmhost_redis-data; services paused for" in said
    assert "llmhost_chroma-data" in llmhost("backup", str(site), "--list")
    paused = machine.ssh("docker ps -q --filter status=paused").stdout
    assert not paused

    machine.ssh("docker compose --file /opt/llmhost/compose.yaml down --volumes")
    converge(machine, run_stack, read_settings(data))
    assert texts(machine) == {} and redis(machine, "dbsize") == "0"

    assert "can be restored" in llmhost("restore", str(site), machine.name, "--drill")
    assert texts(machine) == {}
    llmhost("restore", str(site), machine.name, "--yes")
    assert texts(machine) == before
    assert redis(machine, "dbsize") == "500" and redis(machine, "get k77") == "77"
    listed = machine.ssh("docker ps --format '{{.Names}} {{.Status}}'").stdout
    assert listed.count("(healthy)") == 2
    left = machine.ssh("ls -A /var/lib/docker/volumes/llmhost_redis-data").stdout.split()
    assert left == ["_data"]


def snapshots(site: Path) -> list[str]:
    """Times of the backups in the repository."""
    [found] = json.loads(llmhost("backup", str(site), "--list", "--json"))["hosts"].values()
    return [each["time"] for each in found]


def test_host_backs_itself_up_by_its_timer(
    docker: DockerSite, data: dict[str, Any], tmp_path: Path
) -> None:
    machine = docker.machine
    site = inventory(machine, data, tmp_path)
    scheduled = read_settings({**data, "backup_schedule": "02:30"})
    first = converge(machine, schedule_backups, scheduled, machine.name)
    password = Path(data["backup_password"].removeprefix("file:")).read_text().strip()
    assert password not in first.output
    shown = machine.ssh("stat -c '%a %U' /etc/llmhost/backup.json").stdout.split()
    assert shown == ["600", "root"]
    next_one = machine.ssh("systemctl show -P NextElapseUSecRealtime llmhost-backup.timer").stdout
    assert " 02:3" in next_one
    before = snapshots(site)
    machine.ssh("rm -f /var/lib/llmhost/backup.json; systemctl start llmhost-backup.service")
    assert len(snapshots(site)) == len(before) + 1
    assert json.loads(machine.ssh("cat /var/lib/llmhost/backup.json").stdout)["time"]
    # In no argument, unit or log.
    search = "cat >/run/p; grep -rlf /run/p /etc /usr/local /proc/*/cmdline 2>/dev/null; rm /run/p"
    assert machine.ssh(search, input=password).stdout.split() == ["/etc/llmhost/backup.json"]
    assert password not in machine.ssh("journalctl -o cat -u llmhost-backup").stdout
    # Drift.
    machine.ssh(
        "systemctl disable -q --now llmhost-backup.timer; echo {} >/etc/llmhost/backup.json"
    )
    converge(machine, schedule_backups, scheduled, machine.name)
    assert machine.ssh("systemctl is-active llmhost-backup.timer").stdout.strip() == "active"
    converge(machine, schedule_backups, read_settings(data), machine.name)
    left = machine.ssh(
        "ls /etc/llmhost/backup.json /etc/systemd/system/llmhost-backup.*", check=False
    )
    assert not left.stdout


def test_data_is_backed_up_before_an_image_changes(
    docker: DockerSite, data: dict[str, Any], tmp_path: Path
) -> None:
    machine = docker.machine
    site = inventory(machine, data, tmp_path)
    redis(machine, "set written before-the-update")
    newer = docker.registry.push("newer-stores", "2", store_archive())
    changed = {**data, "redis_image": newer}
    before = snapshots(site)

    unreadable = {**changed, "backup_password": "env:NO_SUCH_PASSWORD"}
    outcome = deploy(machine, run_stack, read_settings(unreadable), machine.name)
    assert not outcome.succeeded and "no backup can be made first" in outcome.output
    assert "Traceback" not in outcome.output
    lost = {**changed, "backup_repository": "/srv/not-mounted"}
    outcome = deploy(machine, run_stack, read_settings(lost), machine.name)
    assert not outcome.succeeded and "/srv/not-mounted has no repository" in outcome.output
    assert snapshots(site) == before

    outcome = converge(machine, run_stack, read_settings(changed), machine.name)
    assert "the image of redis changes: its data is backed up first" in outcome.output
    assert len(snapshots(site)) == len(before) + 1
    assert redis(machine, "get written") == "before-the-update"

    without = {key: value for key, value in data.items() if not key.startswith("backup_")}
    outcome = converge(machine, run_stack, read_settings(without), machine.name)
    assert "its data is not backed up first: there is no backup_repository" in outcome.output
    assert len(snapshots(site)) == len(before) + 1
