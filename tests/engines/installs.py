"""Real engines from package registries, installed once: tests/engines/requirements has the locks.

`script/lock` writes NAME.txt from NAME.in, with hashes.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from testbed.rootfs import cache

REQUIREMENTS = Path(__file__).parent / "requirements"


def python_environment(name: str) -> Path:
    """A virtual environment with the packages of requirements/NAME.txt, and nothing else."""
    lock_file = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(lock_file.read_bytes() + sys.version.encode()).hexdigest()
    home = cache() / "engines" / f"{name}-{digest[:12]}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be installing it
        if not (home / "installed").exists():
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
            subprocess.run([*pip, "-r", str(lock_file)], check=True)
            (home / "installed").touch()
    return home
