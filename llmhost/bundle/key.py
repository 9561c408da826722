"""The signing key of bundles: it proves who created a bundle.

A pair of files on the controller. The private key never leaves the machine that creates bundles;
the public key must be copied once to the machine that applies them, separately from a bundle.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from llmhost.bundle.manifest import BundleError
from llmhost.system.whole_file import write_file, write_private_file

DIRECTORY = Path("~/.config/llmhost/bundle")
PRIVATE, PUBLIC = "bundle.key", "bundle.pub"


def signing_key(directory: Path) -> Ed25519PrivateKey:
    """The private key in a directory; creates a key pair if there is none.

    Raises BundleError if the file is not such a key, OSError if a file cannot be read or written.
    """
    file = directory / PRIVATE
    if not file.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError):  # another run has written it
            write_private_file(file, _private_pem(Ed25519PrivateKey.generate()))
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{file} is not an Ed25519 key: move it away to create a new key")
    write_file(directory / PUBLIC, _public_pem(key.public_key()))
    return key


def verifying_key(file: Path) -> Ed25519PublicKey:
    """A public key. Raises BundleError if there is none."""
    if not file.is_file():
        raise BundleError(
            f"no key to check the bundle with: copy {PUBLIC} from the machine that created the"
            f" bundle to {file}, separately from the bundle"
        )
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{file} is not a bundle's public key: copy {PUBLIC} there again")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """Short fingerprint of a key, for people to compare."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def is_signed(data: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    """Whether the signature of the data is valid."""
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
