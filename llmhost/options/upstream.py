"""`gateway_upstreams`: the LLM servers behind a gateway that runs none of its own."""

from llmhost.options.base import Section
from llmhost.options.types import Address, Name, Port


class UpstreamServer(Section):
    """One LLM server, as the gateway in front of it reaches it."""

    name: Name
    """Name of the server in the inventory; `llmhost drain` uses it."""

    address: Address
    """Address of the server's own gateway. Not a host name: nginx would resolve it only once, and
    would not start without an answer."""

    port: Port = 8080
    """Port of the server's own gateway: its `gateway_port`."""

    @property
    def endpoint(self) -> str:
        """`address:port` as nginx and browsers write it."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"
