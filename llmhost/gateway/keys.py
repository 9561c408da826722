"""API keys: created here and shown once; everything else has only their digests."""

import hashlib
import secrets

PREFIX = "llmhost-"
"""Prefix by which people and secret scanners recognize a leaked key."""


def new_key() -> str:
    """A new key: the prefix and 256 random bits in lower-case hex."""
    return PREFIX + secrets.token_hex(32)


def digest(key: str) -> str:
    """SHA-256 of a key in lower-case hex, for the inventory and the gateway.

    A plain hash is enough for 256 random bits; salting and stretching are for passwords, which can
    be guessed.
    """
    return hashlib.sha256(key.encode()).hexdigest()
