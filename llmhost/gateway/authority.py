"""The site's certificate authority, as files on the controller.

Only its owner can read the key, which never leaves this directory. Everyone who deploys needs a
copy of the directory; otherwise servers would get certificates of different authorities.
"""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from llmhost.gateway.x509 import Authority, authority_certificate, new_authority
from llmhost.options.gateway import CA_CERTIFICATE
from llmhost.system.whole_file import write_file, write_private_file

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
        with suppress(FileExistsError):  # another run has written it
            write_private_file(key_file, new_authority(now).key)
    key = key_file.read_bytes()
    if certificate_file.exists():
        return Authority(certificate_file.read_bytes(), key)
    certificate = authority_certificate(key, now)
    if create:
        write_file(certificate_file, certificate)
    return Authority(certificate, key)


def has_authority(directory: Path) -> bool:
    """Whether there is an authority in a directory."""
    return (directory / KEY).exists()
