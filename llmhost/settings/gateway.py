"""`gateway_*` and `api_clients`: the server's only door."""

from ipaddress import IPv4Network, IPv6Network

from pydantic import Field

from llmhost.settings.base import Section

Network = IPv4Network | IPv6Network


class ApiClient(Section):
    """One program or person that may call the gateway."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")
    """Name shown in logs."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 digest of the key, in lower-case hex: `llmhost key new NAME` prints it."""


class Gateway(Section):
    """nginx in front of the stack."""

    port: int = Field(default=8080, ge=1, le=65535)
    """Port that clients use."""

    sources: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
    """Networks that may reach the port; a key is needed all the same."""

    read_timeout_seconds: int = Field(default=900, ge=60)
    """Longest silence of an engine: a cold model load must fit in."""

    max_body_mib: int = Field(default=64, ge=1)
    """Largest request body."""
