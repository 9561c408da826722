"""`gateway_*` and `api_clients`: the only way in to the server."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import model_validator

from llmhost.options.base import Section
from llmhost.options.kind import Kind, Listed, Mistake, each_of
from llmhost.options.networks import EVERYONE
from llmhost.options.types import (
    SERVICE_NAME,
    Address,
    Flag,
    HostName,
    Items,
    LocalPath,
    Name,
    Networks,
    OneOf,
    Port,
    SecretReference,
    ServiceName,
    Sha256,
    SomeItems,
    Time,
    whole,
)
from llmhost.options.upstream import UpstreamServer

CA_CERTIFICATE = "ca.crt"

_PerMinute = Annotated[int, whole(1, 1_000_000, "requests", 60)]
_Burst = Annotated[int, whole(0, 100_000, "requests", 10)]

_SCOPES = ("inference", "admin")


def _scope(value: object) -> object:
    if isinstance(value, str):
        if value not in _SCOPES:
            raise ValueError
        return value
    if not isinstance(value, list | tuple) or not value:
        raise TypeError
    names = each_of(SERVICE_NAME, value)
    if len({*names}) < len(names):
        raise Mistake("names a service twice; keep one")
    return names


Scope = Annotated[
    Literal["inference", "admin"] | tuple[str, ...],
    Kind(_scope, "'inference', 'admin' or a list of services", ["ollama"], SERVICE_NAME.shown),
]


class ApiClient(Section):
    """One program or person that may call the gateway."""

    name: Name
    """Name in the logs."""

    sha256: Sha256
    """SHA-256 digest of the key, in lower-case hex: `llmhost key new NAME` prints it."""

    previous_sha256: Sha256 | None = None
    """Digest of the key before a rotation."""

    previous_until: Time | None = None
    """When the previous key stops working, with a time zone: `2027-01-31T00:00:00+09:00`."""

    scope: Scope = "inference"
    """`inference`: requests to models. `admin`: also the routes that change or reveal what a
    service holds. A list of services: inference with these services only."""

    sources: Networks | None = None
    """Networks that the client may call from; none: all that can reach the gateway."""

    requests_per_minute: _PerMinute | None = None
    """Most requests in a minute; none: no limit."""

    burst: _Burst = 10
    """Requests that may come at once, ahead of the rate of `requests_per_minute`."""

    concurrent_streams: Annotated[int, whole(1, 65_535, "requests", 4)] | None = None
    """Most requests answered at the same time; none: no limit."""

    expires: Time | None = None
    """When all keys of the client stop working, with a time zone; this needs no deploy."""

    revoked: Flag = False
    """Refuse the client's keys, and keep its name in the logs when they are tried."""

    @model_validator(mode="after")
    def _rotation_is_whole(self) -> "ApiClient":
        if (self.previous_sha256 is None) != (self.previous_until is None):
            missing, other = "previous_sha256", "previous_until"
            if self.previous_until is None:
                missing, other = other, missing
            raise Mistake(f"is missing, and it only works together with {other}; add it", missing)
        return self


class Gateway(Section):
    """nginx in front of the stack."""

    port: Port = 8080
    """Port that clients use."""

    addresses: SomeItems[Address] = (
        IPv4Address("0.0.0.0"),  # noqa: S104 - the firewall and the keys decide who gets in
        IPv6Address("::"),
    )
    """Addresses of the host that the port is opened on."""

    sources: Networks = EVERYONE
    """Networks that may reach the port; a key is still needed."""

    tls: OneOf[Literal["ca", "files", "off"]] = "ca"
    """`ca`: a certificate from the site's own authority; llmhost makes both and renews the
    certificate. `files`: a certificate of the site. `off`: keys and prompts cross the network
    unencrypted."""

    names: Items[HostName] = ()
    """Names and addresses that clients call the host by; a TLS client that asks for another name is
    refused. None: the host's name in the inventory, its own name and its addresses."""

    ca_directory: LocalPath = Path("~/.config/llmhost/ca")
    """Directory on the controller that holds the site's authority, created by the first deploy.
    Everyone who deploys needs a copy. It holds a private key: never commit it."""

    certificate_days: Annotated[int, whole(1, 825, "days", 730)] = 730
    """How long a certificate of the authority is valid."""

    renew_days: Annotated[int, whole(0, 800, "days", 90)] = 90
    """A deploy renews a certificate of the authority that ends within this time."""

    certificate: LocalPath | None = None
    """With `gateway_tls = "files"`: the certificate and its chain, a PEM file on the controller."""

    certificate_key: LocalPath | None = None
    """With `gateway_tls = "files"`: its private key, a PEM file on the controller."""

    upstreams: Annotated[tuple[UpstreamServer, ...], Listed(repeats=True)] = ()
    """LLM servers behind this gateway: records of `name` (the server's in the inventory), `address`
    and `port` (its `gateway_port`). They all run the same services in the same order, and this host
    runs none."""

    upstream_services: Annotated[tuple[ServiceName, ...], Listed(repeats=True)] = ()
    """With `gateway_upstreams`: what the servers declare as `services`, in their order."""

    upstream_key: SecretReference | None = None
    """With `gateway_upstreams`: where the key that this gateway sends to the servers is on the
    controller, `env:NAME` or `file:PATH`. It is one of the servers' `api_clients`."""

    upstream_tls: OneOf[Literal["ca", "files", "off"]] = "ca"
    """With `gateway_upstreams`: whether the servers' certificates come from the site's own
    authority (`ca`) or from the one in `gateway_upstream_authority` (`files`). `off`: the servers
    speak plain HTTP, and keys and prompts cross the network unencrypted."""

    upstream_name: HostName | None = None
    """With `gateway_upstreams`: a host name that all servers list in their `gateway_names`, so
    that their certificates are for it."""

    upstream_authority: LocalPath | None = None
    """With `gateway_upstream_tls = "files"`: certificates of the authorities that the servers'
    certificates come from, a PEM file on the controller."""

    read_timeout_seconds: Annotated[int, whole(60, 86_400, "seconds", 900)] = 900
    """Longest silence of an engine: it must be longer than the cold load of a model."""

    max_body_mib: Annotated[int, whole(1, 65_536, "MiB", 64)] = 64
    """Largest request body."""

    stranger_requests_per_minute: _PerMinute = 60
    """Rate at which an address is answered that it has no valid key; beyond it, 429."""

    stranger_burst: _Burst = 20
    """Refusals of an address that may come at once, ahead of that rate."""

    status_port: Port = 8079
    """Port on 127.0.0.1 where nginx reports its status, without a key."""

    metrics_port: Port | None = 3903
    """Port on 127.0.0.1 with metrics for Prometheus, made from the access log; none: no metrics."""

    @property
    def ca_certificate(self) -> Path | None:
        """File on the controller that clients check the gateway's certificate with, if it is the
        site's own authority's; it exists after the first deploy."""
        return self.ca_directory.expanduser() / CA_CERTIFICATE if self.tls == "ca" else None

    def url(self, host: str) -> str:
        """Address of the gateway for clients that call the host by this name or address."""
        scheme = "http" if self.tls == "off" else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"
