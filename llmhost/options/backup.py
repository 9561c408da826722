"""`backup_*`: backups of the services' data."""

from typing import Annotated

from pydantic import model_validator

from llmhost.options.base import Section
from llmhost.options.kind import Mistake
from llmhost.options.types import Flag, SecretReference, text, whole

_DAY = 86_400

Repository = Annotated[
    str,
    text(
        r"/[^\s\x00]+|(s3|rest|sftp):(?!\S*//[^/\s]*:[^/\s@]*@)\S+",
        "an absolute path on the host, or a repository of restic without a password in it",
        "/mnt/backup/llmhost",
    ),
]


_DAYS = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"(?:[01]?\d|2[0-3])(?:,(?:[01]?\d|2[0-3]))*:[0-5]\d"

Schedule = Annotated[
    str,
    text(
        rf"hourly|daily|weekly|monthly|(?:{_DAYS}(?:,{_DAYS})* )?{_CLOCK}",
        "hourly, daily, weekly, monthly, or a time with or without days of the week",
        "Mon,Thu 02:30",
    ),
]


class Backup(Section):
    """The repository in which `llmhost backup` keeps the services' data, encrypted."""

    repository: Repository | None = None
    """Repository of restic, as the host reaches it: a directory such as a mounted disk, or
    `s3:https://HOST/BUCKET`, `rest:https://HOST/`, `sftp:USER@HOST:/DIRECTORY`. Several hosts may
    share one. None: no backups."""

    schedule: Schedule | None = None
    """When the host backs itself up, in its own time zone: a calendar event of systemd, such as
    `02:30` or `Sat,Sun 03:00`. The host then keeps the password of the repository, readable by root
    only. None: backups are made by `llmhost backup` alone, and no host keeps the password."""

    before_updates: Flag = True
    """Make a backup before a deploy changes the image of a service that keeps data. A deploy fails
    if that backup fails."""

    password: SecretReference = "file:~/.config/llmhost/backup-password"  # noqa: S105
    """Where the controller finds the password of the repository, `env:NAME` or `file:PATH`. Nobody
    can read a backup without it: keep a copy elsewhere."""

    keep_days: Annotated[int, whole(1, 3_650, "days", 30)] = 30
    """How many days a backup is kept; the last one always is."""

    s3_key_id: SecretReference | None = None
    """With an `s3:` repository: where the controller finds the access key's ID."""

    s3_key: SecretReference | None = None
    """With an `s3:` repository: where the controller finds the secret access key."""

    @model_validator(mode="after")
    def _s3_key_is_whole(self) -> "Backup":
        if (self.s3_key_id is None) != (self.s3_key is None):
            missing, other = "s3_key_id", "s3_key"
            if self.s3_key is None:
                missing, other = other, missing
            raise Mistake(f"is missing, and it only works together with {other}; add it", missing)
        return self

    @model_validator(mode="after")
    def _schedule_has_a_repository(self) -> "Backup":
        if self.schedule and not self.repository:
            raise Mistake("is missing, and backup_schedule needs it; add it", "repository")
        return self

    @property
    def late_seconds(self) -> int:
        """Age from which the last backup is late: the longest time between two, and a day."""
        schedule = self.schedule or ""
        days = 7 if schedule == "weekly" or (schedule[:1] in "MTWFS" and schedule) else 1
        return _DAY * (1 + (31 if schedule == "monthly" else days))

    @property
    def secret_variables(self) -> dict[str, str]:
        """Environment variables of restic with secret values, each with the reference."""
        found = {"RESTIC_PASSWORD": self.password}
        if self.s3_key_id and self.s3_key:
            found |= {"AWS_ACCESS_KEY_ID": self.s3_key_id, "AWS_SECRET_ACCESS_KEY": self.s3_key}
        return found
