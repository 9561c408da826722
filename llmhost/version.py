"""Which llmhost is at work: its version and the revision of its checkout, on the controller."""

import subprocess
from functools import cache
from importlib.metadata import version
from threading import Lock

from llmhost.resources import CHECKOUT

# While git works, pyinfra goes on with the next host, which must not ask git again.
_asking = Lock()


def toolkit() -> dict[str, str | bool | None]:
    """`version`, `revision` (a commit, None outside a git checkout) and `modified`: whether the
    checkout differs from that commit."""
    with _asking:
        return _toolkit()


@cache
def _toolkit() -> dict[str, str | bool | None]:
    told = _git("status", "--porcelain=v2", "--branch").splitlines()
    commit = next((line.split()[-1] for line in told if line.startswith("# branch.oid ")), "")
    revision = commit if commit != "(initial)" else None
    return {
        "version": version("llmhost"),
        "revision": revision or None,
        "modified": bool(revision) and any(not line.startswith("#") for line in told),
    }


def _git(*arguments: str) -> str:
    """What git says about the checkout; empty if it can not say anything."""
    # Under sudo the checkout belongs to somebody else, which git takes for an attack by default.
    command = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
