"""Connections of clients to the gateway."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Door:
    """The gateway's URL, and curl's arguments for its address and certificate authority."""

    url: str
    curl: tuple[str, ...]
