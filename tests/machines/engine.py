"""Images made of Debian's packages: the demo's engine, llama.cpp, with nothing else in it."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.machines.apt import Archive, os_release, transport_options
from tests.machines.controller import install_requirements
from tests.machines.image_registry import ImageRegistry
from tests.machines.process import run
from tests.machines.rootfs import cache

# base-files and base-passwd make it a system, curl is what its health check runs.
_PACKAGES = ("llama.cpp-tools", "curl", "base-files", "base-passwd")


def engine_archive() -> Path:
    """The engine's root file system as a tar archive, built first if need be (about 15 s)."""
    return debian_archive("engine", _PACKAGES)


def debian_archive(title: str, packages: Sequence[str]) -> Path:
    """Packages of a recent Debian as a root file system, none of them configured."""
    install_requirements()
    archive = Archive.of_controller()
    # Debian has llama.cpp since forky (14), Ubuntu since 26.04.
    debian = archive.distribution == "debian"
    suite = "forky" if debian else os_release()["VERSION_CODENAME"]
    options = [f"--aptopt={option}" for option in transport_options()]
    recipe = json.dumps([suite, packages, asdict(archive), options])
    target = cache() / f"{title}-{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.tar"
    cache().mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building it
        if not target.exists():
            draft = target.with_suffix(".draft.tar")
            _bootstrap(archive.sources(suite), suite, [*options, _including(packages)], draft)
            draft.rename(target)
    return target


def _bootstrap(sources: str, suite: str, options: list[str], target: Path) -> None:
    log = target.with_suffix(".log")
    log.unlink(missing_ok=True)
    listed = target.with_suffix(".sources")
    listed.write_text(sources)
    # Unpacked and not configured: no package manager, no shell, and no script has to run.
    command = ["mmdebstrap", "--mode=root", "--variant=extract", *options]
    command += [suite, str(target), str(listed)]
    # One date for every file that the build itself writes: equal packages, equal archive.
    run(command, output=log, env={"SOURCE_DATE_EPOCH": "0"})


def _including(packages: Sequence[str]) -> str:
    return f"--include={','.join(packages)}"


def push_engine(registry: ImageRegistry) -> str:
    """Put the engine into a registry; returns its full reference, pinned by digest."""
    archive = engine_archive()
    return registry.push("llama.cpp", archive.stem.removeprefix("engine-"), archive)
