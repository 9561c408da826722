"""pyinfra as an operator runs it: a process of its own, whose output is for the operator."""

import subprocess
import sys
from pathlib import Path


def run_pyinfra(inventory: str, deploy: Path, *options: str) -> int:
    """Run a deploy of llmhost's as an operator would, and return its exit status."""
    program = str(Path(sys.executable).with_name("pyinfra"))
    command = [program, inventory, str(deploy), *options]
    return subprocess.run(command, check=False).returncode
