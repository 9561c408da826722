"""Files on the controller that are replaced at once: a full disk or a kill leaves the old file."""

import os
from pathlib import Path


def write_file(file: Path, content: str | bytes) -> None:
    """Write or replace a file in one rename. It keeps its permissions, and a link stays a link.

    What is no regular file, such as `/dev/stdout`, is written to. Raises OSError.
    """
    data = content.encode() if isinstance(content, str) else content
    if file.exists() and not file.is_file():
        file.write_bytes(data)
        return
    file = file.resolve()
    draft = _draft(file)
    try:
        draft.write_bytes(data)
        if file.exists():
            draft.chmod(file.stat().st_mode & 0o7777)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def write_private_file(file: Path, content: str | bytes) -> None:
    """Write a new file that only its owner may read. Raises FileExistsError if there is one
    already, also one that another process has just written, and OSError."""
    data = content.encode() if isinstance(content, str) else content
    draft = _draft(file)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(data)
        os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _draft(file: Path) -> Path:
    """Beside the file, and another one for each process."""
    return file.with_name(f".{file.name}.{os.getpid()}.new")
