"""Version and commit of llmhost on the controller."""

import json
import subprocess
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path
from threading import Lock

from llmhost.resources import CHECKOUT

# While git runs, pyinfra continues with the next host, which must not run git again.
_asking = Lock()


def toolkit() -> dict[str, str | bool | None]:
    """`version`, `revision` (a commit; None if it is unknown) and `modified`: whether the checkout
    differs from that commit."""
    with _asking:
        return _toolkit()


@cache
def _toolkit() -> dict[str, str | bool | None]:
    revision, modified = _of_checkout(CHECKOUT) if CHECKOUT else (_of_installation(), False)
    return {"version": version("llmhost"), "revision": revision, "modified": modified}


def _of_checkout(directory: Path) -> tuple[str | None, bool]:
    """Commit of a checkout, and whether its files differ from it."""
    status = _git(directory, "status", "--porcelain=v2", "--branch").splitlines()
    commit = next((line.split()[-1] for line in status if line.startswith("# branch.oid ")), "")
    if commit in ("", "(initial)"):
        return None, False
    return commit, any(not line.startswith("#") for line in status)


def _of_installation() -> str | None:
    """Commit that pip, pipx or uv installed from, if it was a repository.

    https://packaging.python.org/en/latest/specifications/direct-url/
    """
    origin = json.loads(distribution("llmhost").read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None


def _git(directory: Path, *arguments: str) -> str:
    """Output of git in a directory; empty if git fails."""
    # Under sudo the checkout belongs to another user, and git would refuse it by default.
    command = ["git", "-c", f"safe.directory={directory}", "-C", str(directory), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
