"""How clients reach the gateway."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Door:
    """The gateway's URL, and the arguments that tell curl where it is and whom to trust."""

    url: str
    curl: tuple[str, ...]
