"""`gateway_upstreams`: the LLM servers behind a gateway that has none of its own."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

from pydantic import BeforeValidator, Field

from llmhost.options.base import Section


def _address(value: object) -> object:
    try:
        return ip_address(str(value))
    except ValueError:
        raise ValueError("is not an address; write it like 10.0.0.1 or fd00::1") from None


class Upstream(Section):
    """One LLM server, as the gateway before it finds it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")
    """What the server is called, by `llmhost drain` for one: its name in the inventory."""

    address: Annotated[IPv4Address | IPv6Address, BeforeValidator(_address)]
    """Address of the server's own gateway. No host name: nginx would look it up only once, and
    would not start without an answer."""

    port: int = Field(default=8080, ge=1, le=65535)
    """Port of the server's own gateway: its `gateway_port`."""

    @property
    def endpoint(self) -> str:
        """`address:port` as nginx and browsers write it."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"
