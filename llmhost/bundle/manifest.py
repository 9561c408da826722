"""What a bundle holds: everything that a deploy would fetch, in one file for hosts without network.

Pure: the file itself is read and written by llmhost/bundle/file.py.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1

DIRECTORY = "/var/lib/llmhost/bundle"
"""Where a bundle's parts wait on a host for the deploy; removed when it has succeeded."""

IMAGES = "images"
PACKAGES = "packages"
KEYS = "keys"
WHEELS = "wheels"
PINS = "pins"
TOOLKIT = "toolkit"
"""Directories of a bundle: archives of images, a package repository, keys of other repositories,
what llmhost itself runs on, lock files, and llmhost itself."""

WAITING = f"{DIRECTORY}/{IMAGES}"
"""Where the deploy finds images that it need not build."""


class BundleError(ValueError):
    """A bundle that must not be used; the message is a sentence that begins with its name."""


@dataclass(frozen=True)
class Part:
    """One file of a bundle, by its path within."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """What packages are for, in the words of os-release(5) and dpkg: `debian`, `13`, `amd64`."""

    distribution: str
    version: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} on {self.architecture}"


@dataclass(frozen=True)
class Manifest:
    """All that is in a bundle, and what it was made of.

    `toolkit` is llmhost's version and revision, `settings` the digest of each host's settings,
    `packages` what the deploy installs by name, `images` the path of each image's archive by the
    image's reference, `python` tells for which Python the wheels are.
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
        """As JSON; equal manifests, equal bytes."""
        document = {"format": FORMAT, **asdict(self)}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def read_manifest(data: bytes) -> Manifest:
    """The manifest in a file whose signature is right. Raises BundleError with a sentence's end."""
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise BundleError("was made by another llmhost: make it anew with this one")
        return _manifest(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError("has a manifest that can not be read: make it anew") from None


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
    """Why a host can not take the packages of a bundle."""
    if found != manifest.release:
        yield f"{host} runs {found}, and the bundle is for {manifest.release}: make one for it"


def lacking(
    manifest: Manifest, host: str, packages: Iterable[str], images: Sequence[str]
) -> Iterator[str]:
    """What a host's inventory asks for and the bundle has not got."""
    fix = "make the bundle anew from this inventory, with this llmhost"
    if missing := sorted(set(packages) - set(manifest.packages)):
        yield f"{host} needs packages that are not in the bundle ({', '.join(missing)}): {fix}"
    for reference in images:
        if reference not in manifest.images:
            yield f"{host} needs the image {reference}, which is not in the bundle: {fix}"
