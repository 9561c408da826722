"""The real Ray of the lock that images of engine groups are built with."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
from pathlib import Path

from llmhost.resources import FILES
from testbed import real_vllm
from testbed.rootfs import cache

_LOCK = FILES / "images/vllm_group/ray.lock"


def installed() -> Path:
    """A directory with Ray, installed as the image's Dockerfile does: 240 MB."""
    home = cache() / f"ray-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]}"
    cache().mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            pip = [str(real_vllm.installed() / "bin/pip"), "install", "--quiet", "--no-cache-dir"]
            options = ["--only-binary", ":all:", "--require-hashes", "--no-deps"]
            draft = home.with_suffix(".draft")
            command = [*pip, *options, "--target", str(draft), "--requirement", str(_LOCK)]
            subprocess.run(command, check=True, timeout=600)
            draft.rename(home)
    return home
