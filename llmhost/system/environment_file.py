"""A file of environment variables with a secret. Pure.

The host reports the digest of each line, so that differences can be named without values.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmhost.system.files import File, PathState, differences

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")


@dataclass(frozen=True)
class EnvironmentState:
    """The file on a host: `path` is the file's state, `digests` the SHA-256 of its lines by the
    variable that each sets, `owner_exists` whether its owner is a user of the host."""

    path: PathState | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    owner_exists: bool = False


def unfit(secret: str) -> str:
    """Why a secret cannot be in such a file, as the rest of a sentence; empty if it can.

    Shells, systemd, Compose and HTTP headers all read these characters literally (RFC 6750).
    """
    if _TOKEN.fullmatch(secret):
        return ""
    return "refers to a secret that contains characters other than letters, digits and ._~+/=-"


def reasons(file: File, state: EnvironmentState) -> list[str]:
    """Differences from the declared file; they name variables, never their values."""
    found = {file.path: state.path} if state.path else {}
    wrong = [*differences([file], found).values()]
    if not wrong or not state.digests or state.path is None or state.path.sha256 == file.sha256:
        return wrong
    wanted = digests(str(file.content).splitlines())
    changed = sorted(
        name for name in {*wanted, *state.digests} if wanted.get(name) != state.digests.get(name)
    )
    return [f"{name} in {file.path} has another value" for name in changed] or wrong


def digests(lines: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each line that sets a variable, by the variable."""
    return {
        line.partition("=")[0]: hashlib.sha256(line.encode()).hexdigest()
        for line in lines
        if "=" in line and not line.startswith("#")
    }
