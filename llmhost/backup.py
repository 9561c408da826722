"""Backups of a host: files/backup/host.py with its arguments, and what it prints. Pure."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmhost.history.run_record import LOCK
from llmhost.inventory.site import SiteHost
from llmhost.resources import FILES
from llmhost.secret import read_secret
from llmhost.settings import Settings

LOCK_SECONDS = 600
"""How long a backup waits for the end of a deploy."""

SCRIPT = FILES / "backup/host.py"

SCHEMA = 1


@dataclass(frozen=True)
class BackupMade:
    """A backup of one host. `paused_seconds`: how long its services waited."""

    snapshot: str
    volumes: tuple[str, ...]
    files: int
    bytes: int
    paused_seconds: float


@dataclass(frozen=True)
class BackupReport:
    """The output of `llmhost backup --json`, by host; `errors` are sentences."""

    schema: int
    hosts: Mapping[str, BackupMade]
    errors: Mapping[str, str]


@dataclass(frozen=True)
class BackupKept:
    """A backup in a repository. `time` is ISO 8601."""

    snapshot: str
    host: str
    time: str
    volumes: tuple[str, ...]


@dataclass(frozen=True)
class BackupListReport:
    """The output of `llmhost backup --list --json`: the repository of each host."""

    schema: int
    hosts: Mapping[str, tuple[BackupKept, ...]]
    errors: Mapping[str, str]


@dataclass(frozen=True)
class VolumeRestored:
    """What was restored, and compared with the repository."""

    files: int
    bytes: int


@dataclass(frozen=True)
class RestoreReport:
    """The output of `llmhost restore --json`; with `drill`, the data was not exchanged."""

    schema: int
    host: str
    drill: bool
    snapshot: str
    time: str
    volumes: Mapping[str, VolumeRestored]


def backup_made(printed: Mapping[str, Any]) -> BackupMade:
    """What the script prints of a backup."""
    return BackupMade(**{**printed, "volumes": tuple(printed["volumes"])})


def backups_kept(printed: Mapping[str, Any]) -> tuple[BackupKept, ...]:
    """What the script prints of a repository."""
    return tuple(
        BackupKept(**{**each, "volumes": tuple(each["volumes"])}) for each in printed["snapshots"]
    )


def restored(host: str, printed: Mapping[str, Any], *, drill: bool) -> RestoreReport:
    """What the script prints of a restore."""
    sizes = {name: VolumeRestored(**size) for name, size in printed["volumes"].items()}
    return RestoreReport(SCHEMA, host, drill, **{**printed, "volumes": sizes})


def command(host: SiteHost, do: str, owner: str = "", **more: object) -> str:
    """Shell command for root; its standard input is `secrets`. `owner` is a record of a run."""
    return script_command(question(host.name, host.settings, do, owner, **more))


def script_command(asked: Mapping[str, object]) -> str:
    """The same, with its argument."""
    script = shlex.quote(SCRIPT.read_text(encoding="utf-8"))
    return f"python3 -I -c {script} {shlex.quote(json.dumps(asked))}"


def question(
    name: str, settings: Settings, do: str, owner: str = "", **more: object
) -> dict[str, object]:
    """The argument of the script on the host of this name."""
    return {
        "do": do,
        "repository": settings.backup.repository,
        "host": name,
        "keep_days": settings.backup.keep_days,
        "start_seconds": settings.stack.start_timeout_seconds,
        "record": record(settings),
        "lock": LOCK,
        "lock_seconds": LOCK_SECONDS,
        "volumes": containers(settings),
        "owner": owner,
        "create": False,
        **more,
    }


def record(settings: Settings) -> str:
    """File on the host that says when its last backup succeeded."""
    return f"{settings.receipt.directory}/backup.json"


def containers(settings: Settings, services: tuple[str, ...] = ()) -> dict[str, str]:
    """Containers by volume with data, as Docker names them; of all services, or of these."""
    return {
        f"{settings.stack.project}_{volume}": f"{settings.stack.project}-{service.name}-1"
        for service in settings.catalogue
        if not services or service.name in services
        for volume in service.data_volumes(settings.options(service.name))
    }


def secrets(settings: Settings) -> bytes:
    """The variables of restic for the script. Raises ValueError, whose text begins with the
    option."""
    found = {}
    names = {"RESTIC_PASSWORD": "password", "AWS_ACCESS_KEY_ID": "s3_key_id"}
    for variable, reference in settings.backup.secret_variables.items():
        try:
            found[variable] = read_secret(reference)
        except ValueError as error:
            raise ValueError(f"backup_{names.get(variable, 's3_key')} {error}") from None
    return json.dumps(found).encode()


def without_backup(host: SiteHost) -> str:
    """Why a host has no backups; empty if it has."""
    if not host.settings.backup.repository:
        return "backup_repository is not set"
    return "" if containers(host.settings) else "none of its services keeps data"
