"""Paths of llmhost's files: in the package, or in a checkout by links."""

import shlex
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
TEMPLATES = PACKAGE / "templates"
FILES = PACKAGE / "files"
PAGES = PACKAGE / "pages"
"""The documentation; `llmhost docs NAME` prints a page."""

CHECKS = PACKAGE / "checks"
"""The server tests that `llmhost verify` runs."""

CONFIG = PACKAGE / "config.py"
DEPLOY = PACKAGE / "deploy.py"
BAKE = PACKAGE / "bake.py"
REQUIREMENTS = PACKAGE / "requirements.lock"
"""Dependencies of llmhost, with versions and hashes."""

CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
"""The repository, if llmhost runs from a checkout."""


@cache
def script_text(name: str) -> str:
    """The POSIX shell script `files/<name>`."""
    return (FILES / name).read_text(encoding="utf-8")


def script(name: str, *arguments: str, functions: str = "") -> str:
    """Shell command that runs the script `files/<name>` with these arguments in a new shell.

    `functions` is another script, which defines functions that this one calls.
    """
    text = "\n".join(script_text(each) for each in (functions, name) if each)
    return shlex.join(["sh", "-c", text, name, *arguments])
