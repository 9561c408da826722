"""Programs that make and measure models: llama.cpp's, and Python with PyTorch and ONNX Runtime.

They are from Debian's packages, for any controller, and run in a file system of their own, because
they need Debian 14's libraries. This machine's temporary files and cached models are at their usual
paths in it. Needs root.
"""

from __future__ import annotations

import fcntl
import shlex
import shutil
import tarfile
import tempfile
from pathlib import Path

from testbed.engine import root_archive
from testbed.rootfs import cache

_PACKAGES = (
    *("llama.cpp-tools", "llama.cpp-tools-extra", "python3-gguf", "python3-torch"),
    *(
        "python3-transformers",
        "python3-sentencepiece",
        "python3-onnx",
        "python3-onnxruntime",
        "python3",
    ),
    *("base-files", "base-passwd", "coreutils", "dash"),
)
_CONVERTER = "/usr/share/doc/llama.cpp-tools/scripts/convert_hf_to_gguf.py"
_PROGRAMS = {
    "llama-quantize": ["llama-quantize"],
    "llama-imatrix": ["llama-imatrix"],
    "llama-perplexity": ["llama-perplexity"],
    "llama-bench": ["llama-bench"],
    "llama-server": ["llama-server"],
    "convert_hf_to_gguf.py": ["python3", _CONVERTER],
    "python3": ["python3"],
}
# Debian's alternatives are links that a package's scripts make; those do not run here.
_LIBRARIES = ("blas", "lapack", "openblas-pthread")
_SCRIPT = """#!/bin/sh
exec unshare --mount sh -c '
root=$1; shift
for place in /dev /proc {places}; do mount --rbind "$place" "$root$place" || exit; done
place=/; [ -d "$root$PWD" ] && place=$PWD
exec chroot "$root" /usr/bin/env -i --chdir="$place" PATH=/usr/bin:/bin HOME=/tmp \\
    PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH={libraries} "$@"' sh {root} {command} "$@"
"""


def directory() -> Path:
    """A directory with these programs, unpacked if it is not in the cache (1 min, 1 GB)."""
    archive = root_archive("making", _PACKAGES, "forky")
    home = archive.with_suffix("")
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "programs").is_dir():
            shutil.rmtree(home, ignore_errors=True)
            with tarfile.open(archive) as content:
                content.extractall(home / "root", filter="fully_trusted")
            _write_programs(home)
    return home / "programs"


def _write_programs(home: Path) -> None:
    draft = home / "programs.draft"
    draft.mkdir()
    places = [Path(tempfile.gettempdir()), cache()]
    for place in places:
        (home / "root" / place.relative_to("/")).mkdir(parents=True, exist_ok=True)
    found = [
        f"/{each.relative_to(home / 'root')}"
        for name in _LIBRARIES
        for each in (home / "root").glob(f"usr/lib/*/{name}")
    ]
    for name, command in _PROGRAMS.items():
        script = draft / name
        script.write_text(
            _SCRIPT.format(
                places=shlex.join(map(str, places)),
                libraries=":".join(found),
                root=shlex.quote(str(home / "root")),
                command=shlex.join(command),
            )
        )
        script.chmod(0o755)
    draft.rename(home / "programs")
