"""Backup: a timer on the host, where the inventory declares one."""

import hashlib
import json

from llmhost import backup
from llmhost.history.run_record import Run
from llmhost.operations import files, systemd
from llmhost.operations.component import component
from llmhost.settings import Settings
from llmhost.system.files import Absent, Directory, Entry, File
from llmhost.template import render

DIRECTORY = "/usr/local/lib/llmhost-backup"
SECRETS = "/etc/llmhost/backup.json"
SERVICE = "/etc/systemd/system/llmhost-backup.service"
TIMER = "/etc/systemd/system/llmhost-backup.timer"
_FILES = (TIMER, SERVICE, SECRETS, f"{DIRECTORY}/host.py", f"{DIRECTORY}/asked.json")


@component("Backup")
def schedule_backups(settings: Settings, host_name: str) -> None:
    """Let the host of this name back itself up; or remove what does."""
    wanted = bool(settings.backup.schedule and backup.containers(settings))
    if not wanted:
        off = {"running": False, "enabled": False}
        systemd.service("llmhost-backup.timer", **off, name="Stop backups by the host")
    files.present(
        *(_files(settings, host_name) if wanted else map(Absent, _FILES)),
        name="Declare when the host backs itself up",
    )
    if wanted:
        systemd.without_overrides(
            "llmhost-backup.timer",
            "llmhost-backup.service",
            known=settings.system.accepted_overrides,
            then="reload",
            name="Remove overrides of the backup's units",
        )
        systemd.service(
            "llmhost-backup.timer",
            newer_than=[TIMER],
            others=["llmhost-backup.service"],
            name="Run the timer that makes backups",
        )


def _files(settings: Settings, name: str) -> list[Entry]:
    # For the message to those who wait for its lock.
    owner = Run("backup", "llmhost-backup.timer", "", "", None, modified=False, process=0)
    asked = json.dumps(backup.question(name, settings, "backup", owner.line), indent=2)
    service = render("backup/llmhost-backup.service.j2", directory=DIRECTORY, secrets=SECRETS)
    digest = hashlib.sha256(service.encode()).hexdigest()[:16]
    timer = render(
        "backup/llmhost-backup.timer.j2", digest=digest, schedule=settings.backup.schedule
    )
    return [
        Directory(DIRECTORY),
        Directory("/etc/llmhost"),
        File(f"{DIRECTORY}/host.py", backup.SCRIPT.read_bytes()),
        File(f"{DIRECTORY}/asked.json", asked + "\n"),
        File(SECRETS, backup.secrets(settings), mode="0600"),
        File(SERVICE, service),
        File(TIMER, timer),
    ]
