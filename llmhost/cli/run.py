"""pyinfra as an operator runs it: a process of its own, whose output is for the operator."""

import os
import subprocess
import sys
from pathlib import Path

from llmhost.template import ROOT


def run_pyinfra(inventory: str, deploy: str, *options: str) -> int:
    """Run a deploy of llmhost's as an operator would, and return its exit status."""
    program = str(Path(sys.executable).with_name("pyinfra"))
    found = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))}
    command = [program, inventory, str(ROOT / deploy), *options]
    return subprocess.run(command, env=environment, check=False).returncode
