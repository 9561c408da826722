"""Images from Debian's packages: the demo's engine, llama.cpp, and nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from testbed.apt import Archive, os_release, transport_options
from testbed.controller import install_requirements
from testbed.image_registry import ImageRegistry
from testbed.process import run
from testbed.rootfs import MMDEBSTRAP, cache

# base-files and base-passwd make it a system; its health check runs curl.
_PACKAGES = ("llama.cpp-tools", "curl", "base-files", "base-passwd")


def engine_archive() -> Path:
    """The engine's root file system as a tar archive, built if necessary (about 15 s)."""
    # Debian has llama.cpp since forky (14), Ubuntu since 26.04.
    return root_archive("engine", _PACKAGES, "forky")


def root_archive(
    name: str, packages: Sequence[str], debian_suite: str, files: Path | None = None
) -> Path:
    """A root file system of packages of this suite (on Ubuntu: of the controller's own) with the
    files below a directory laid on top, as a tar archive; built if it is not in the cache."""
    install_requirements()
    archive = Archive.of_controller()
    debian = archive.distribution == "debian"
    suite = debian_suite if debian else os_release()["VERSION_CODENAME"]
    options = [f"--aptopt={option}" for option in transport_options()]
    contents = {} if files is None else _digests(files)
    recipe = json.dumps([suite, list(packages), asdict(archive), options, *contents.items()])
    target = cache() / f"{name}-{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.tar"
    if files:
        options.append(f"--extract-hook=cp -r {files}/. $1")
    cache().mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building it
        if not target.exists():
            draft = target.with_suffix(".draft.tar")
            _bootstrap(archive.sources(suite), packages, suite, options, draft)
            draft.rename(target)
    return target


def _digests(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _bootstrap(
    sources: str, packages: Sequence[str], suite: str, options: list[str], target: Path
) -> None:
    log = target.with_suffix(".log")
    log.unlink(missing_ok=True)
    listed = target.with_suffix(".sources")
    listed.write_text(sources)
    # Unpacked but not configured: no package manager, no shell, and no scripts are needed.
    command = [*MMDEBSTRAP, "--variant=extract", *options]
    command += ["--include", ",".join(packages), suite, str(target), str(listed)]
    # One date for every file that the build writes: equal packages give an equal archive.
    run(command, output=log, env={"SOURCE_DATE_EPOCH": "0"})


def push_engine(registry: ImageRegistry) -> str:
    """Push the engine to a registry; returns its full reference, pinned by digest."""
    archive = engine_archive()
    return registry.push("llama.cpp", archive.stem.removeprefix("engine-"), archive)
