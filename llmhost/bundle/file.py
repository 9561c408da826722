"""The bundle file: an uncompressed tar archive that begins with its manifest and the signature.

Compression would not help: packages, wheels and most weights are compressed already, and a part of
an uncompressed archive can be read in place, without unpacking what precedes it.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from llmhost.bundle.key import fingerprint, is_signed
from llmhost.bundle.manifest import BundleError, Manifest, Part, read_manifest

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
_CHUNK = 1 << 20
_LONGEST_MANIFEST = 64 << 20


def write_bundle(target: Path, manifest: Manifest, parts: Path, key: Ed25519PrivateKey) -> None:
    """Join the parts below a directory into one signed file; it appears only when complete."""
    draft = target.with_name(f".{target.name}.new")
    text = manifest.write()
    try:
        with tarfile.open(draft, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in ((MANIFEST, text), (SIGNATURE, key.sign(text))):
                tar.addfile(_entry(name, len(data)), io.BytesIO(data))
            for part in manifest.parts:
                with (parts / part.path).open("rb") as file:
                    tar.addfile(_entry(part.path, part.bytes), file)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; `places` are the offsets of the parts in the file."""

    manifest: Manifest
    places: dict[str, int]
    file: BinaryIO

    def read(self, part: Part, skip: int = 0) -> Iterator[bytes]:
        """A part's content in chunks, without its first `skip` bytes; threads may read at once."""
        at = self.places[part.path] + skip
        end = at - skip + part.bytes
        while piece := os.pread(self.file.fileno(), min(_CHUNK, end - at), at):
            at += len(piece)
            yield piece


@contextmanager
def verified_bundle(
    path: Path, key: Ed25519PublicKey, progress: Callable[[int], None] = lambda _bytes: None
) -> Iterator[Bundle]:
    """Read the whole bundle and compare it with its signed manifest.

    `progress` is called with the number of further bytes compared. Raises BundleError with a
    sentence.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    with file:
        yield _verified(path, file, key, progress)


def _verified(
    path: Path, file: BinaryIO, key: Ed25519PublicKey, progress: Callable[[int], None]
) -> Bundle:
    members = _members(path, file)
    first = [(member.name, member.size) for member in members[:2]]
    if [name for name, _ in first] != [MANIFEST, SIGNATURE] or first[0][1] > _LONGEST_MANIFEST:
        raise BundleError(f"{path} is not a bundle: it does not begin with a signed manifest")
    text, signature = (_content(file, member) for member in members[:2])
    if not is_signed(text, signature, key):
        raise BundleError(
            f"{path} is not signed with the key {fingerprint(key)}: it was altered or signed with"
            " another key; do not use it unless its creator gave you that key"
        )
    try:
        manifest = read_manifest(text)
    except BundleError as error:
        raise BundleError(f"{path} {error}") from None
    _compare(path, manifest, members[2:])
    bundle = Bundle(manifest, {member.name: member.offset_data for member in members[2:]}, file)
    for part in manifest.parts:
        digest = hashlib.sha256()
        for piece in bundle.read(part):
            digest.update(piece)
            progress(len(piece))
        if digest.hexdigest() != part.sha256:
            raise _altered(path, part.path)
    return bundle


def _members(path: Path, file: BinaryIO) -> list[tarfile.TarInfo]:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            members = tar.getmembers()
    except tarfile.ReadError as error:
        if "unexpected end" in str(error):
            raise _cut_off(path) from None
        raise BundleError(f"{path} is not a bundle: not a tar archive, or truncated") from None
    except tarfile.TarError:
        raise BundleError(f"{path} was altered: copy it again from its source") from None
    ends = (member.offset_data + member.size for member in members)
    # tar(5): an archive is padded with zeros to whole records.
    if size % tarfile.RECORDSIZE or any(end > size for end in ends):
        raise _cut_off(path)
    return members


def _compare(path: Path, manifest: Manifest, members: list[tarfile.TarInfo]) -> None:
    """Check that the file has the manifest's parts in the same order, all of them plain files."""
    found = {member.name: member for member in members}
    for part in manifest.parts:
        member = found.get(part.path)
        if member is None:
            raise BundleError(f"{path} lacks {part.path}: copy it again from its source")
        if not member.isreg() or member.size != part.bytes:
            raise _altered(path, part.path)
    known = {part.path for part in manifest.parts}
    for member in members:
        if member.name not in known:
            raise _altered(path, member.name)
    if len(members) != len(known):
        raise BundleError(f"{path} was altered: it contains a part twice")


def _altered(path: Path, part: str) -> BundleError:
    return BundleError(
        f"{path} was altered: {part} does not match the manifest; copy it again from its source"
    )


def _cut_off(path: Path) -> BundleError:
    return BundleError(f"{path} is cut off: copy it again from its source")


def _content(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    return file.read(member.size)
