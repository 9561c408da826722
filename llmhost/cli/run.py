"""Run the pyinfra command."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def run_pyinfra(inventory: str, deploy: Path, *options: str) -> int:
    """Run one of llmhost's deploys in a pyinfra process and return its exit status."""
    command = [*_pyinfra(), inventory, str(deploy), *options]
    return subprocess.run(command, check=False).returncode


def become_pyinfra(arguments: Sequence[str]) -> NoReturn:
    """Replace this process with pyinfra."""
    command = [*_pyinfra(), *arguments]
    os.execv(command[0], command)  # noqa: S606


def _pyinfra() -> list[str]:
    """pyinfra of this environment: uv and pipx put only llmhost on PATH."""
    return [sys.executable, "-P", "-m", "pyinfra"]
