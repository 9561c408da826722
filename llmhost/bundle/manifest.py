"""The contents of a bundle: everything that a deploy would fetch, for hosts without a network.

Pure: llmhost/bundle/file.py reads and writes the file itself.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1

DIRECTORY = "/var/lib/llmhost/bundle"
"""Directory of a bundle's parts on a host during a deploy; removed when it has succeeded."""

IMAGES = "images"
PACKAGES = "packages"
KEYS = "keys"
WHEELS = "wheels"
PINS = "pins"
TOOLKIT = "toolkit"
"""Directories of a bundle: image archives, a package repository, keys of other repositories,
llmhost's Python packages, lock files, and llmhost itself."""

WAITING = f"{DIRECTORY}/{IMAGES}"
"""Where the deploy finds image archives, so that it does not build the images."""


class BundleError(ValueError):
    """A bundle must not be used; the message is a sentence that begins with its name."""


@dataclass(frozen=True)
class Part:
    """One file of a bundle; `path` is relative to the bundle."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """The release that packages are for, as in os-release(5) and dpkg: `debian`, `13`, `amd64`."""

    distribution: str
    version: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} on {self.architecture}"


@dataclass(frozen=True)
class Manifest:
    """All parts of a bundle, and what it was created from.

    `toolkit` is llmhost's version and revision, `settings` the digest of each host's settings,
    `packages` the names of packages that the deploy installs, `images` the path of each image's
    archive by the image's reference, `python` the Python version that the wheels are for.
    """

    created: str
    toolkit: Mapping[str, str | bool | None]
    release: Release
    python: str
    settings: Mapping[str, str]
    packages: tuple[str, ...]
    images: Mapping[str, str]
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes of all parts together."""
        return sum(part.bytes for part in self.parts)

    def below(self, *directories: str) -> list[Part]:
        """Parts in these directories of the bundle."""
        return [part for part in self.parts if part.path.partition("/")[0] in directories]

    def write(self) -> bytes:
        """The manifest as JSON; equal manifests give equal bytes."""
        document = {"format": FORMAT, **asdict(self)}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def read_manifest(data: bytes) -> Manifest:
    """Parse a manifest whose signature is valid. Raises BundleError with the end of a sentence."""
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise BundleError("was created by another llmhost version: recreate it with this one")
        return _manifest(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError("has a manifest that cannot be read: recreate the bundle") from None


def _manifest(document: Mapping[str, Any]) -> Manifest:
    return Manifest(
        created=str(document["created"]),
        toolkit=dict(document["toolkit"]),
        release=Release(**document["release"]),
        python=str(document["python"]),
        settings=dict(document["settings"]),
        packages=tuple(document["packages"]),
        images=dict(document["images"]),
        parts=tuple(Part(**part) for part in document["parts"]),
    )


def unfit(manifest: Manifest, host: str, found: Release) -> Iterator[str]:
    """Why a host cannot use the packages of a bundle."""
    if found != manifest.release:
        yield f"{host} runs {found}, but the bundle is for {manifest.release}: create one for it"


def lacking(
    manifest: Manifest, host: str, packages: Iterable[str], images: Sequence[str]
) -> Iterator[str]:
    """What a host's inventory declares and the bundle does not contain."""
    fix = "recreate the bundle from this inventory with this llmhost"
    if missing := sorted(set(packages) - set(manifest.packages)):
        yield f"{host} needs packages that are not in the bundle ({', '.join(missing)}): {fix}"
    for reference in images:
        if reference not in manifest.images:
            yield f"{host} needs the image {reference}, which is not in the bundle: {fix}"
