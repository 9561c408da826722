"""`gateway_upstreams`: the LLM servers behind a gateway that runs no services."""

from llmhost.options.base import Section
from llmhost.options.types import Address, Name, Port


class UpstreamServer(Section):
    """One LLM server behind the gateway."""

    name: Name
    """Name of the server in the inventory; `llmhost drain` uses it."""

    address: Address
    """Address of the server's gateway. Not a host name: nginx resolves names only at its start, and
    does not start without an answer."""

    port: Port = 8080
    """The server's `gateway_port`."""

    @property
    def endpoint(self) -> str:
        """`address:port` as nginx and browsers write it."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"
