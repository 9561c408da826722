"""`gateway_upstreams`: the LLM servers behind a gateway that has none of its own."""

from ipaddress import IPv4Address, IPv6Address

from pydantic import Field

from llmhost.settings.base import Section


class Upstream(Section):
    """One LLM server, as the gateway before it finds it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")
    """What the server is called, by `llmhost drain` for one: its name in the inventory."""

    address: IPv4Address | IPv6Address
    """Address of the server's own gateway. No host name: nginx would look it up only once, and
    would not start without an answer."""

    port: int = Field(default=8080, ge=1, le=65535)
    """Port of the server's own gateway: its `gateway_port`."""

    @property
    def endpoint(self) -> str:
        """`address:port` as nginx and browsers write it."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"
