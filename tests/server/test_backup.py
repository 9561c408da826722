"""Backups of a provisioned server."""

import json
from typing import Any

import pytest

from llmhost.backup import containers, record
from llmhost.checks.applies import does_not_apply
from llmhost.settings import Settings


@pytest.fixture(scope="module", autouse=True)
def _keeps_data(settings: Settings) -> None:
    if not (settings.backup.repository and containers(settings)):
        does_not_apply("there is no backup_repository, or no service keeps data")


def test_last_backup_is_not_late(host: Any, settings: Settings) -> None:
    file = host.file(record(settings))
    assert file.exists, "no backup has been made yet"
    age = float(host.check_output("date +%s")) - json.loads(file.content_string)["time"]
    assert age < settings.backup.late_seconds


def test_timer_runs_where_it_is_declared(host: Any, settings: Settings) -> None:
    wanted = bool(settings.backup.schedule)
    asked = [
        host.run(f"systemctl {ask} llmhost-backup.timer") for ask in ("is-active", "is-enabled")
    ]
    assert [answer.succeeded for answer in asked] == [wanted, wanted]


def test_secrets_are_for_root_only(host: Any, settings: Settings) -> None:
    if not settings.backup.schedule:
        does_not_apply("backup_schedule is not declared: the host keeps no password")
    secrets = host.file("/etc/llmhost/backup.json")
    assert (secrets.user, oct(secrets.mode)) == ("root", "0o600")
