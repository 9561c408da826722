"""Real engines from Python packages, each in a virtual environment of its own in the cache.

`testbed/locks` pins all packages of an environment with their hashes; `script/lock` writes it. Some
need PyTorch's build for CPUs (`+cpu`), which PyPI does not have: name an index or a directory that
has it in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS, or in pip's configuration.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from testbed.rootfs import cache

_LOCKS = Path(__file__).parent / "locks"
_INSTALL_SECONDS = 2400


def version(name: str, package: str) -> str:
    """The version of a package that an environment's lock pins."""
    pinned = re.search(rf"^{re.escape(package)}==(\S+)", _lock(name).read_text(), re.MULTILINE)
    assert pinned, f"{package} is not in the lock of {name}"
    return pinned[1]


def installed(name: str, finish: Callable[[Path], None] | None = None) -> Path:
    """The environment of `testbed/locks/NAME.lock`; installed if it is not in the cache.

    `finish` completes a new environment. Several gigabytes and minutes the first time.
    """
    home = cache() / f"{name}-{hashlib.sha256(_lock(name).read_bytes()).hexdigest()[:12]}"
    cache().mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "installed").exists():
            shutil.rmtree(home, ignore_errors=True)
            _install(name, home)
            if finish:
                finish(home)
            (home / "installed").touch()
    return home


def _install(name: str, home: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
    pip = [str(home / "bin/pip"), "install", "--quiet", "--no-cache-dir", "--no-compile"]
    # The lock is complete: pip need not resolve it again.
    pinned = ["--no-deps", "--require-hashes", "--requirement", str(_lock(name))]
    subprocess.run([*pip, *pinned], check=True, timeout=_INSTALL_SECONDS)


def _lock(name: str) -> Path:
    return _LOCKS / f"{name}.lock"
