"""Secrets: an inventory refers to a secret on the controller and never contains it."""

import os
import re
from pathlib import Path

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:\S.*")


def is_reference(text: str) -> bool:
    """Whether text refers to a secret: `env:NAME`, or `file:PATH` relative to the working
    directory."""
    return _REFERENCE.fullmatch(text) is not None


def read_secret(reference: str) -> str:
    """The secret, without the newline of its file.

    Raises ValueError, whose text continues the option's name. It never contains the secret.
    """
    kind, _, place = reference.partition(":")
    if kind == "env":
        secret = os.environ.get(place, "")
        if not secret:
            raise ValueError(f"refers to the environment variable {place}, which is not set")
        return secret
    try:
        secret = Path(place).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"refers to the file {place}, which cannot be read: {why}") from None
    if not secret:
        raise ValueError(f"refers to the file {place}, which is empty")
    return secret
