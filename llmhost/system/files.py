"""Declared files, directories and absences compared with what is on a host.

Pure: the state comes from facts/files.py, the commands are run by operations/files.py.
"""

import base64
import hashlib
import io
import shlex
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

CANDIDATE_SUFFIX = ".llmhost-new"
UNITS = "/etc/systemd/system/"
"""Directory of unit files and of their drop-ins."""


@dataclass(frozen=True)
class File:
    """A regular file with exactly this content, owner, group and mode (octal, four digits)."""

    path: str
    content: str | bytes
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"

    @property
    def data(self) -> bytes:
        return self.content.encode() if isinstance(self.content, str) else self.content

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Directory:
    """A directory with this owner, group and mode."""

    path: str
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class Absent:
    """Nothing at this path: a file or link is removed, a directory is refused."""

    path: str


Entry = File | Directory | Absent


@dataclass(frozen=True)
class PathState:
    """The entry at a path. `kind` is `file`, `directory`, `link` or `other`; `modified` is in
    seconds since the epoch; `sha256` is set for files only."""

    kind: str
    owner: str
    group: str
    mode: str
    modified: float
    sha256: str | None = None


def differences(entries: Iterable[Entry], found: Mapping[str, PathState]) -> dict[Entry, str]:
    """Entries that are not as declared, each with the reason."""
    reasons = {entry: _difference(entry, found.get(entry.path)) for entry in entries}
    return {entry: reason for entry, reason in reasons.items() if reason}


def _difference(entry: Entry, state: PathState | None) -> str:
    if isinstance(entry, Absent):
        return f"{entry.path} must not exist" if state else ""
    wanted = "file" if isinstance(entry, File) else "directory"
    if state is None:
        return f"{entry.path} is missing"
    if state.kind != wanted:
        return f"{entry.path} is a {state.kind}, not a {wanted}"
    if isinstance(entry, File) and state.sha256 != entry.sha256:
        return f"{entry.path} has other content"
    if (state.owner, state.group) != (entry.owner, entry.group):
        return f"{entry.path} belongs to {state.owner}:{state.group}"
    if state.mode != entry.mode:
        return f"{entry.path} has mode {state.mode}"
    return ""


def candidate_path(path: str) -> str:
    """Temporary path of a file, in the same directory, until a rename replaces the old file."""
    pure = PurePosixPath(path)
    return str(pure.with_name(f".{pure.name}{CANDIDATE_SUFFIX}"))


def archive(files: Mapping[str, File]) -> str:
    """Files by the path to unpack them to, as base64 of a gzipped tar for a command's stdin.

    stdin, because contents must not appear in an argument list or in a temporary file that others
    can read.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as tar:
        for path, file in files.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mode = len(file.data), int(file.mode, 8)
            info.uname, info.gname = file.owner, file.group
            tar.addfile(info, io.BytesIO(file.data))
    return base64.b64encode(buffer.getvalue()).decode()


UNPACK = "umask 077; base64 -d | tar -xzp --same-owner --touch -C /"
"""Shell command that unpacks `archive` from its stdin."""


def apply_script(entries: Iterable[Entry]) -> str:
    """Shell script that creates the entries; each file appears complete, by one rename. systemd
    loads files of units at once: before version 257, it does not say that it must be reloaded if
    the directory of a unit's drop-ins is new (systemd issue 31752)."""
    entries = list(entries)
    files = [entry for entry in entries if isinstance(entry, File)]
    lines = ["set -e"]
    lines += [_make_directory(entry) for entry in entries if isinstance(entry, Directory)]
    parents = sorted({str(PurePosixPath(file.path).parent) for file in files})
    lines += [f"mkdir -p -m 0755 {shlex.quote(parent)}" for parent in parents if parent != "/"]
    lines += [UNPACK] if files else []
    lines += [_activate(file.path) for file in files]
    lines += [_remove(entry.path) for entry in entries if isinstance(entry, Absent)]
    # Only if necessary: a reload may take GPUs from containers (files/docker/cut_off.sh).
    lines += ["systemctl daemon-reload"] if any(map(_is_of_unit, entries)) else []
    return "\n".join(lines)


def _is_of_unit(entry: Entry) -> bool:
    return entry.path.startswith(UNITS) and not isinstance(entry, Directory)


def _make_directory(entry: Directory) -> str:
    return (
        f"install -d -m {entry.mode} -o {shlex.quote(entry.owner)} -g {shlex.quote(entry.group)}"
        f" {shlex.quote(entry.path)}"
    )


def _activate(path: str) -> str:
    return f"mv -fT {shlex.quote(candidate_path(path))} {shlex.quote(path)}"


def _remove(path: str) -> str:
    return f"rm -f {shlex.quote(path)}"
