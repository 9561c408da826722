"""What a backup contains, and what is refused before a host is contacted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmhost.backup import (
    backup_made,
    backups_kept,
    command,
    containers,
    restored,
    secrets,
    without_backup,
)
from llmhost.host_packages import host_packages
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import no_rules
from llmhost.operations import files, systemd
from llmhost.stack.project import compose_project
from llmhost.system.files import Absent
from llmhost.tasks import backup as task
from tests.unit.service_sites import sites

LLMHOST = Path(sys.executable).with_name("llmhost")
REDIS = {"services": ["redis"], "redis_persistent": True}
REPOSITORY = {"backup_repository": "/mnt/backup"}


def host(**data: Any) -> SiteHost:
    data["api_clients"] = [{"name": "app", "sha256": "cd" * 32}]
    return SiteHost("llm-1", read_settings(data), frozenset())


def test_every_volume_with_data_is_in_a_backup(tmp_path: Path) -> None:
    """A new service cannot forget its volume; caches of compiled code are no data."""
    seen = set()
    for name, what, data in sites(tmp_path):
        settings = read_settings(data, rules=no_rules)
        volumes = {
            f"llmhost_{volume}"
            for text in compose_project(settings).services.values()
            for volume, options in (yaml.safe_load(text).get("volumes") or {}).items()
            if "llmhost.cache" not in (options or {}).get("labels", {})
        }
        assert volumes == {*containers(settings)}, (name, what)
        seen |= volumes
    assert len(seen) >= 4


def test_volumes_of_apps_and_only_of_chosen_services_are_named() -> None:
    app = {"name": "notes", "image": "x@sha256:" + "0" * 64, "container_port": 80}
    app |= {"health": ["true"], "volumes": {"b": "/b", "a": "/a"}}
    settings = host(services=["redis"], apps=[app], redis_persistent=True).settings
    notes = {"llmhost_notes-a": "llmhost-notes-1", "llmhost_notes-b": "llmhost-notes-1"}
    assert containers(settings) == {"llmhost_redis-data": "llmhost-redis-1", **notes}
    assert containers(settings, ("notes",)) == notes
    assert containers(settings, ("other",)) == {}


def test_restic_is_installed_where_backups_are_declared() -> None:
    assert "restic" in set(host_packages(host(**REDIS, **REPOSITORY), "debian", "13"))
    assert "restic" not in set(host_packages(host(**REDIS), "debian", "13"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (REDIS, "backup_repository is not set"),
        ({"services": ["redis"], **REPOSITORY}, "none of its services keeps data"),
        ({**REDIS, **REPOSITORY}, ""),
    ],
)
def test_reason_for_no_backup_is_named(data: dict[str, Any], why: str) -> None:
    assert without_backup(host(**data)) == why


def test_secrets_are_not_in_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("pass\n")
    monkeypatch.setenv("KEY", "hush")
    keys = {"backup_s3_key_id": "env:KEY", "backup_s3_key": "env:KEY"}
    password = {"backup_password": f"file:{tmp_path}/password"}
    found = host(**REDIS, backup_repository="s3:https://s3.example/b", **keys, **password)
    assert json.loads(secrets(found.settings)) == {
        "RESTIC_PASSWORD": "pass",
        "AWS_ACCESS_KEY_ID": "hush",
        "AWS_SECRET_ACCESS_KEY": "hush",
    }
    assert "hush" not in command(found, "backup") and "pass\n" not in command(found, "backup")
    (tmp_path / "password").unlink()
    with pytest.raises(ValueError, match=r"^backup_password refers to the file .*, which cannot"):
        secrets(found.settings)


@pytest.mark.parametrize(
    "repository",
    ["backup", "rest:https://user:pass@host/", "s3:https://a:b@host/x", "ftp:host", "/a b"],
)
def test_repository_that_is_none_or_has_a_password_is_refused(repository: str) -> None:
    with pytest.raises(SettingsError) as error:
        host(**REDIS, backup_repository=repository)
    [problem] = error.value.problems
    assert problem.key == "backup_repository" and "pass" not in problem.what.partition(";")[0]


@pytest.mark.parametrize(
    "repository",
    ["/mnt/backup", "s3:https://s3.example/b", "sftp:backup@nas:/llm", "rest:https://nas:8000/"],
)
def test_repository_is_accepted(repository: str) -> None:
    assert host(backup_repository=repository).settings.backup.repository == repository


def test_half_a_key_is_refused() -> None:
    with pytest.raises(SettingsError) as error:
        host(**REDIS, **REPOSITORY, backup_s3_key_id="env:KEY")
    assert [problem.key for problem in error.value.problems] == ["backup_s3_key"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["backup"], "error: far: backup_repository is not set"),
        (["restore", "far"], "error: far: backup_repository is not set"),
    ],
)
def test_host_without_backups_is_named(unreachable: Path, words: list[str], sentence: str) -> None:
    command = [str(LLMHOST), words[0], str(unreachable), *words[1:]]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1 and ran.stderr.startswith(sentence), ran.stderr


@pytest.mark.parametrize("schedule", ["daily", "02:30", "Mon,Thu 2:05", "1,13:00", "weekly"])
def test_systemd_understands_the_schedule(schedule: str) -> None:
    host(**REDIS, **REPOSITORY, backup_schedule=schedule, backup_password="env:HOME")
    said = subprocess.run(["systemd-analyze", "calendar", schedule], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr


def mistakes(**declared: Any) -> list[str]:
    with pytest.raises(SettingsError) as error:
        host(**REDIS, **declared)
    return [each.sentence("here") for each in error.value.problems]


@pytest.mark.parametrize("schedule", ["24:00", "Mon..Fri 03:00", "every night", "03:00; reboot"])
def test_other_schedules_are_refused(schedule: str) -> None:
    [sentence] = mistakes(**REPOSITORY, backup_schedule=schedule)
    assert sentence.startswith("here: backup_schedule: is ") and "hourly, daily" in sentence


def test_schedule_needs_a_repository_and_its_password() -> None:
    [sentence] = mistakes(backup_schedule="daily")
    assert sentence.startswith("here: backup_repository: is missing")
    [sentence] = mistakes(**REPOSITORY, backup_schedule="daily", backup_password="env:UNSET")
    assert "backup_password: refers to the environment variable UNSET" in sentence
    assert sentence.endswith("llmhost backup --create")


@pytest.mark.parametrize(
    ("schedule", "days"),
    [(None, 2), ("hourly", 2), ("02:30", 2), ("Sat 02:30", 8), ("weekly", 8), ("monthly", 32)],
)
def test_backup_is_late_a_day_after_the_next_one_was_due(schedule: str | None, days: int) -> None:
    declared = {"backup_schedule": schedule, "backup_password": "env:HOME"}
    found = host(**REDIS, **REPOSITORY, **declared).settings.backup
    assert found.late_seconds == days * 86_400


def test_what_the_script_prints_is_read() -> None:
    """As JSON, which has lists."""
    made = {"snapshot": "01", "volumes": ["b", "a"], "files": 2, "bytes": 9, "paused_seconds": 0.1}
    assert backup_made(made).volumes == ("b", "a")
    kept = {"snapshot": "01", "host": "llm-1", "time": "2026-11-29T10:00:00Z", "volumes": ["a"]}
    # Two hosts may share a repository: its backups are shown once.
    assert len({*backups_kept({"snapshots": [kept]}), *backups_kept({"snapshots": [kept]})}) == 1
    printed = {
        "snapshot": "01",
        "time": "2026-11-29T10:00:00",
        "volumes": {"a": {"files": 2, "bytes": 9}},
    }
    report = restored("llm-1", printed, drill=True)
    assert report.volumes["a"].bytes == 9 and report.drill


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({}, id="no-repository"),
        pytest.param(REPOSITORY, id="no-schedule"),
        pytest.param(
            {**REPOSITORY, "backup_schedule": "daily", "redis_persistent": False}, id="no-data"
        ),
    ],
)
def test_host_that_no_longer_backs_itself_up_keeps_neither_timer_nor_password(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_PASSWORD", "p" * 40)
    done: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        systemd, "service", lambda unit, **more: done.append((unit, more["running"]))
    )
    monkeypatch.setattr(files, "present", lambda *entries, **_: done.append(entries))
    settings = host(**{**REDIS, "backup_password": "env:BACKUP_PASSWORD", **data}).settings
    task.schedule_backups._inner(settings, "llm-1")  # type: ignore[attr-defined]
    stopped, removed = done
    assert stopped == ("llmhost-backup.timer", False)
    assert {task.TIMER, task.SERVICE, task.SECRETS} <= {each.path for each in removed}
    assert all(isinstance(each, Absent) for each in removed)
