"""Images of the doubles of engines that are not available here: Python, and one program."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipapp
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.engine import root_archive
from testbed.image_registry import ImageRegistry

DOUBLES = Path(__file__).resolve().parents[1] / "tests/doubles"

# Tools of the real images that are used: Perl to bake, a shell to start, curl for a health check.
_PACKAGES = (
    "python3",
    "perl-base",
    "dash",
    "grep",
    "coreutils",
    "curl",
    "base-files",
    "base-passwd",
)


def push_double(registry: ImageRegistry, engine: str) -> str:
    """Push an image with the double tests/doubles/<engine> as /usr/local/bin/<engine>.

    Returns its full reference, pinned by digest.
    """
    with TemporaryDirectory(prefix="llmhost-double-") as directory:
        root = Path(directory, "root.tar")
        shutil.copy(root_archive("double", _PACKAGES, "forky"), root)
        with tarfile.open(root, "a") as archive:
            _add(archive, f"usr/local/bin/{engine}", program(engine))
        return registry.push(f"double-of-{engine}", "1", root)


def program(engine: str) -> bytes:
    """The double as one executable file: its module, or an archive of its package."""
    module = DOUBLES / f"{engine}.py"
    if module.exists():
        return module.read_bytes()
    with TemporaryDirectory(prefix="llmhost-double-") as directory:
        top, packed = Path(directory), io.BytesIO()
        inside = top / "tests/doubles" / engine
        shutil.copytree(DOUBLES / engine, inside, ignore=shutil.ignore_patterns("__pycache__"))
        for package in ("tests", "tests/doubles"):
            shutil.copy2(DOUBLES.parents[1] / package / "__init__.py", top / package)
        shutil.copy2(inside / "__main__.py", top)
        zipapp.create_archive(top, packed, interpreter="/usr/bin/python3 -B")
        return packed.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), 0o755
    archive.addfile(entry, io.BytesIO(content))
