"""API keys: made here, shown once, and known everywhere else by their digest only."""

import hashlib
import secrets

PREFIX = "llmhost-"
"""What a key begins with, so that a person and a secret scanner recognise a leaked one."""


def new_key() -> str:
    """A fresh key: the prefix and 256 random bits in lower-case hex."""
    return PREFIX + secrets.token_hex(32)


def digest(key: str) -> str:
    """SHA-256 of a key in lower-case hex: what the inventory and the gateway hold.

    A plain hash is enough where the secret has 256 random bits; salting and stretching are for
    passwords, which can be guessed.
    """
    return hashlib.sha256(key.encode()).hexdigest()
