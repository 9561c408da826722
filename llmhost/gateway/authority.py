"""The site's certificate authority, as files on the controller.

Only its owner can read the key, which never leaves this directory. Everyone who deploys needs a
copy of the directory; otherwise servers would get certificates of different authorities.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from llmhost.gateway.x509 import Authority, authority_certificate, new_authority
from llmhost.options.gateway import CA_CERTIFICATE

KEY = "ca.key"


def open_authority(directory: Path, *, create: bool) -> Authority:
    """The authority in a directory.

    If there is none, a new one, which is written only with `create` (a dry run leaves no trace).
    Raises OSError if files cannot be read or written.
    """
    now = datetime.now(UTC)
    key_file, certificate_file = directory / KEY, directory / CA_CERTIFICATE
    if not key_file.exists():
        if not create:
            return new_authority(now)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_once(key_file, new_authority(now).key)
    key = key_file.read_bytes()
    if certificate_file.exists():
        return Authority(certificate_file.read_bytes(), key)
    certificate = authority_certificate(key, now)
    if create:
        certificate_file.write_bytes(certificate)
    return Authority(certificate, key)


def has_authority(directory: Path) -> bool:
    """Whether there is an authority in a directory."""
    return (directory / KEY).exists()


def _write_once(path: Path, content: bytes) -> None:
    """Write a private file atomically; a file that another run has written stays."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    try:
        draft.write_bytes(content)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
