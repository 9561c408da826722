"""`gateway_upstreams`: the LLM servers behind a gateway that runs no services."""

from typing import Annotated, Literal

from llmhost.options.adapter import Role
from llmhost.options.base import Section
from llmhost.options.types import Address, Items, Name, OneOf, Port, ServiceName, Tokens, whole


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


class UpstreamModel(Section):
    """One model that servers behind the gateway run."""

    name: Role
    """Name that clients request, as in the servers' `models`."""

    service: ServiceName
    """Service that runs it there; one of `gateway_upstream_services`."""

    task: OneOf[Literal["generate", "embed", "rerank"]] = "generate"
    """What it does."""

    context_tokens: Tokens = 4096
    """Context length of a request."""

    parallel: Annotated[int, whole(1, 65_535, "requests", 4)] | None = None
    """Requests that each server answers at once; in excess of them, requests go to the model's
    `gateway_fallbacks`. None: no limit."""

    servers: Items[Name] = ()
    """Servers of `gateway_upstreams` that run it; none: all."""
