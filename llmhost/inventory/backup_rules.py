"""Secrets of backups that the host itself makes."""

from collections.abc import Iterator

from llmhost.inventory.problem import Problem
from llmhost.secret import read_secret
from llmhost.settings import Settings


def backup_problems(settings: Settings) -> Iterator[Problem]:
    """A schedule without a password, or for a host that keeps no data."""
    backup = settings.backup
    if not backup.schedule:
        return
    for option in ("password", "s3_key_id", "s3_key"):
        if reference := getattr(backup, option):
            try:
                read_secret(reference)
            except ValueError as error:
                fix = "create the repository and its password with: llmhost backup --create"
                yield Problem(f"backup_{option}", str(error), fix)
