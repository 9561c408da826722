"""Create a bundle: images and packages come from a builder, the rest from the controller."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llmhost.bundle.file import write_bundle
from llmhost.bundle.manifest import (
    IMAGES,
    PINS,
    TOOLKIT,
    WHEELS,
    BundleError,
    Manifest,
    Part,
    Release,
)
from llmhost.bundle.parts import Parts
from llmhost.bundle.wheel import own_wheel
from llmhost.cli.bundle_packages import gather_packages
from llmhost.cli.bundle_targets import images_of, packages_of
from llmhost.cli.remote import LOCAL, Remote
from llmhost.cli.run import run_pyinfra
from llmhost.docker.image import ServiceImage
from llmhost.inventory.site import SiteHost
from llmhost.resources import BAKE, REQUIREMENTS
from llmhost.units import gib
from llmhost.version import toolkit

_LOOK = """\
. /etc/os-release; echo "$ID|$VERSION_ID|$VERSION_CODENAME|$(dpkg --print-architecture)"
for tool in gpg %s; do command -v $tool >/dev/null || echo "$tool"; done
%s"""
_PACKAGES = {
    "gpg": "gnupg",
    "curl": "curl",
    "docker": "docker.io docker-cli",
    "docker buildx": "docker-buildx",
}
_BUILDX = "docker buildx version >/dev/null 2>&1 || echo 'docker buildx'"


@dataclass(frozen=True)
class Builder:
    """The machine that builds images and downloads packages; `data` is its pyinfra host data."""

    remote: Remote
    data: Mapping[str, Any]
    release: Release
    codename: str


def builder_of(remote: Remote, data: Mapping[str, Any], *, bakes: bool) -> Builder:
    """Inspect the builder. Raises BundleError if it lacks a tool."""
    tools, more = ("docker curl", _BUILDX) if bakes else ("", "")
    first, *missing = remote.run(_LOOK % (tools, more)).splitlines()
    if missing:
        packages = " ".join(dict.fromkeys(_PACKAGES[each] for each in missing))
        raise BundleError(
            f"{remote.name} lacks {', '.join(missing)}: install it there, on Debian 13 with"
            f" apt-get install {packages}"
        )
    distribution, version, codename, architecture = first.split("|")
    sudo = {} if remote.is_root else {"_sudo": True}
    release = Release(distribution, version, architecture)
    return Builder(remote, {**data, **sudo}, release, codename)


def create_bundle(
    targets: Sequence[SiteHost],
    builder: Builder,
    more_packages: Sequence[str],
    output: Path,
    key: Ed25519PrivateKey,
) -> Manifest:
    """Collect all parts in a directory beside `output`, then join them; finished parts are reused.

    Raises BundleError and RemoteError with a sentence.
    """
    parts = Parts(output.with_name(f"{output.name}.parts"))
    images = dict(_images(targets, builder, parts))
    names = sorted({*more_packages, *(n for t in targets for n in packages_of(t, builder.release))})
    gathered = [
        *(parts.finished(path) or _lost(path) for path in images.values()),
        *gather_packages(targets, names, builder.remote, builder.release, builder.codename, parts),
        *_pins(targets, parts),
        *_toolkit(parts),
        *_wheels(parts),
    ]
    manifest = Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        toolkit=toolkit(),
        release=builder.release,
        python=f"{platform.python_version()} on {platform.machine()}",
        settings={target.name: target.settings.digest for target in targets},
        packages=tuple(names),
        images=images,
        parts=tuple(gathered),
    )
    if shutil.disk_usage(output.absolute().parent).free < manifest.size:
        raise BundleError(
            f"{output.absolute().parent} has less than {gib(manifest.size)} free: free disk space"
            " and rerun the command; finished parts are reused"
        )
    typer.echo(f"writing {output}: {len(gathered)} parts, {gib(manifest.size)}")
    write_bundle(output, manifest, parts.directory, key)
    parts.remove()
    return manifest


def _lost(path: str) -> Part:
    raise BundleError(f"{path} changed while the bundle was created: rerun the command")


def _images(
    targets: Sequence[SiteHost], builder: Builder, parts: Parts
) -> Iterator[tuple[str, str]]:
    """The path of each image's archive, by reference."""
    for target in targets:
        paths = {image: f"{IMAGES}/{image.archive}" for image in images_of(target)}
        if unfinished := [image for image, path in paths.items() if not parts.finished(path)]:
            typer.echo(f"building the images of {target.name} on {builder.remote.name}")
            _bake(target, builder)
            for image in unfinished:
                _save(image, paths[image], builder.remote, parts)
        yield from ((image.reference, path) for image, path in paths.items())


def _save(image: ServiceImage, path: str, remote: Remote, parts: Parts) -> None:
    script = f"docker save {image.reference}"
    part = parts.obtain(path, lambda file: remote.save(script, file))
    typer.echo(f"saved {image.reference}: {gib(part.bytes)}")


def _bake(target: SiteHost, builder: Builder) -> None:
    """Build a host's images on the builder with pyinfra, from the host's settings."""
    own = {k: v for k, v in target.data.items() if not k.startswith(("ssh_", "_"))}
    name = LOCAL if builder.remote.reach == ("sh", "-c") else builder.remote.name
    with TemporaryDirectory(prefix="llmhost-") as directory:
        site, inventory = Path(directory, "site.json"), Path(directory, "inventory.py")
        site.write_text(json.dumps([name, {**own, **builder.data}], default=str))
        inventory.write_text(
            "import json\nfrom pathlib import Path\n\n"
            f"builder = [tuple(json.loads(Path({str(site)!r}).read_text()))]\n"
        )
        if run_pyinfra(str(inventory), BAKE, "-y"):
            raise BundleError(
                f"the images of {target.name} could not be built on {builder.remote.name}; see the"
                " lines above for the reason. A rerun reuses what is finished"
            )


def _pins(targets: Sequence[SiteHost], parts: Parts) -> Iterator[Part]:
    """The models' lock files, as evidence of what the bundle contains. Those of several directories
    may have the same name."""
    locks = {Path(target.settings.stack.models_lock).expanduser() for target in targets}
    names: set[str] = set()
    for number, lock in enumerate(sorted(each for each in locks if each.is_file()), 1):
        name = f"{number}-{lock.name}" if lock.name in names else lock.name
        names.add(name)
        yield parts.keep(f"{PINS}/{name}", lock.read_bytes())


def _toolkit(parts: Parts) -> Iterator[Part]:
    """llmhost itself, as it runs here, and its requirements."""
    name, wheel = own_wheel()
    yield parts.keep(f"{TOOLKIT}/{name}", wheel)
    yield parts.keep(f"{TOOLKIT}/{REQUIREMENTS.name}", REQUIREMENTS.read_bytes())


def _wheels(parts: Parts) -> Iterator[Part]:
    """The Python packages that llmhost requires, for an offline controller with this Python."""
    directory = parts.directory / WHEELS
    typer.echo("downloading the Python packages for the controller")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", "--only-binary", ":all:", "--dest", str(directory)]
    command += ["--requirement", str(REQUIREMENTS)]
    if subprocess.run(command, check=False).returncode:
        raise BundleError(
            "pip could not download the packages of requirements.lock; see the lines above for"
            " the reason"
        )
    for wheel in sorted(directory.glob("*.whl")):
        path = f"{WHEELS}/{wheel.name}"
        yield parts.finished(path) or parts.adopt(path)
