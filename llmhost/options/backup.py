"""`backup_*`: backups of the services' data."""

from typing import Annotated

from pydantic import model_validator

from llmhost.options.base import Section
from llmhost.options.kind import Mistake
from llmhost.options.types import SecretReference, text, whole

Repository = Annotated[
    str,
    text(
        r"/[^\s\x00]+|(s3|rest|sftp):(?!\S*//[^/\s]*:[^/\s@]*@)\S+",
        "an absolute path on the host, or a repository of restic without a password in it",
        "/mnt/backup/llmhost",
    ),
]


class Backup(Section):
    """The repository in which `llmhost backup` keeps the services' data, encrypted."""

    repository: Repository | None = None
    """Repository of restic, as the host reaches it: a directory such as a mounted disk, or
    `s3:https://HOST/BUCKET`, `rest:https://HOST/`, `sftp:USER@HOST:/DIRECTORY`. Several hosts may
    share one. None: no backups."""

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

    @property
    def secret_variables(self) -> dict[str, str]:
        """Environment variables of restic with secret values, each with the reference."""
        found = {"RESTIC_PASSWORD": self.password}
        if self.s3_key_id and self.s3_key:
            found |= {"AWS_ACCESS_KEY_ID": self.s3_key_id, "AWS_SECRET_ACCESS_KEY": self.s3_key}
        return found
