"""Fingerprints of OpenPGP keys, to verify a repository's key before apt trusts it.

Pure; runs on the controller, because a minimal Debian has neither gpg nor sq.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator

_PUBLIC_KEY = 6
_ARMOR_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_ARMOR_END = "-----END PGP PUBLIC KEY BLOCK-----"


class UnreadableKey(ValueError):
    """Not a public key that llmhost can read; the message continues a sentence."""


def dearmored(data: bytes) -> bytes:
    """The key's packets, decoded from ASCII armor (RFC 9580, section 6.2) if necessary.

    Raises UnreadableKey if the armor contains no valid base64.
    """
    text = data.decode("ascii", errors="replace")
    if _ARMOR_BEGIN not in text:
        return data
    body = text.partition(_ARMOR_BEGIN)[2].partition(_ARMOR_END)[0]
    lines = body.replace("\r", "").split("\n")
    # Headers end with an empty line; the line that begins with "=" is a checksum.
    start = next((at for at, line in enumerate(lines) if at and not line.strip()), 0)
    encoded = "".join(line.strip() for line in lines[start:] if not line.startswith("="))
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise UnreadableKey("its ASCII armor is damaged") from error


def fingerprint(data: bytes) -> str:
    """Fingerprint of the one primary key in `data`, 40 upper-case hexadecimal digits.

    Raises UnreadableKey if there is none, if there are several (an attacker could append a key), or
    if the key is not version 4. Subkeys are ignored: apt's verifiers accept only those that the
    primary key signed.
    """
    keys = [body for tag, body in _packets(dearmored(data)) if tag == _PUBLIC_KEY]
    if not keys:
        raise UnreadableKey("it is not an OpenPGP public key")
    if len(keys) > 1:
        raise UnreadableKey(f"it holds {len(keys)} keys instead of one")
    if keys[0][:1] != b"\x04":
        raise UnreadableKey("it is not a version 4 key")
    # RFC 9580, section 5.5.4.2.
    framed = b"\x99" + len(keys[0]).to_bytes(2, "big") + keys[0]
    return hashlib.sha1(framed).hexdigest().upper()  # noqa: S324 - the fingerprint's definition


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each packet (RFC 9580, section 4.2)."""
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise UnreadableKey("it is not an OpenPGP public key")
        new = bool(head & 0x40)
        tag = head & 0x3F if new else (head >> 2) & 0x0F
        start, length = _length(data, at + 1, None if new else head & 3)
        at = start + length
        if at > len(data):
            raise UnreadableKey("it is truncated")
        yield tag, data[start:at]


def _length(data: bytes, at: int, old_type: int | None) -> tuple[int, int]:
    """Start and length of a packet's body."""
    if old_type is not None:
        if old_type == 3:
            raise UnreadableKey("it holds a packet without a length")
        width = 1 << old_type
        return at + width, int.from_bytes(data[at : at + width], "big")
    first = data[at] if at < len(data) else 0
    if first < 192:
        return at + 1, first
    if first < 224:
        second = data[at + 1] if at + 1 < len(data) else 0
        return at + 2, ((first - 192) << 8) + second + 192
    if first == 255:
        return at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
    raise UnreadableKey("it holds a packet of unknown length")
