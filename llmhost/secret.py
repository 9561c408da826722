"""Secrets: an inventory refers to a secret on the controller and never contains it."""

import os
import re
import secrets
from pathlib import Path

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:\S.*")
_IN_HEADERS = re.compile(r"[!-~]+")


def is_reference(text: str) -> bool:
    """Whether text refers to a secret: `env:NAME`, or `file:PATH` relative to the working
    directory."""
    return _REFERENCE.fullmatch(text) is not None


def read_secret(reference: str) -> str:
    """The secret, without the newline at its end.

    Raises ValueError, whose text continues the option's name. It never contains the secret.
    """
    kind, _, place = reference.partition(":")
    if kind == "env":
        secret = os.environ.get(place, "").rstrip("\r\n")
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


def read_token(reference: str) -> str:
    """A secret for an HTTP header. Raises ValueError as `read_secret` does, also for one that a
    header cannot have: the errors of clients, and curl's warnings, would print it."""
    token = read_secret(reference)
    if not _IN_HEADERS.fullmatch(token):
        raise ValueError(
            f"refers to {_place(reference)}, whose value has spaces, line breaks or characters"
            " beyond ASCII"
        )
    return token


def read_password(reference: str) -> str:
    """A secret for a line of a configuration. Raises ValueError as `read_secret` does, also for one
    that is no line."""
    password = read_secret(reference)
    if not password.isprintable():
        raise ValueError(
            f"refers to {_place(reference)}, whose value has line breaks or control characters"
        )
    return password


def _place(reference: str) -> str:
    kind, _, place = reference.partition(":")
    return f"the environment variable {place}" if kind == "env" else f"the file {place}"


def create_secret(reference: str) -> bool:
    """Write 32 random bytes, in hexadecimal, to the file that is referred to, which only its owner
    may read. False if the file exists or the reference is to a variable. Raises OSError."""
    kind, _, place = reference.partition(":")
    path = Path(place).expanduser()
    if kind != "file" or path.exists():
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{secrets.token_hex(32)}\n")
    return True
