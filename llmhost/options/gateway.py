"""`gateway_*` and `api_clients`: the server's only door."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from llmhost.options.base import Section
from llmhost.options.names import CLIENT
from llmhost.options.upstream import Upstream
from llmhost.secret import SecretReference

Network = IPv4Network | IPv6Network

CA_CERTIFICATE = "ca.crt"

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def overlap(one: Network, other: Network) -> bool:
    """Whether two networks have addresses in common."""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _distinct(networks: Sequence[Network]) -> Sequence[Network]:
    if not networks:
        raise ValueError("is empty: name a network, or leave the key out")
    for one, other in combinations(networks, 2):
        if overlap(one, other):
            raise ValueError("holds networks that overlap: keep the wider one")
    return networks


def _name(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        if _HOST_NAME.fullmatch(text.lower()):
            return text.lower()
        raise ValueError("is neither a host name nor an address") from None


Name = Annotated[str, AfterValidator(_name)]
Networks = Annotated[tuple[Network, ...], AfterValidator(_distinct)]


class ApiClient(Section):
    """One program or person that may call the gateway."""

    name: str = Field(pattern=CLIENT)
    """Name shown in logs."""

    sha256: Digest
    """SHA-256 digest of the key, in lower-case hex: `llmhost key new NAME` prints it."""

    previous_sha256: Digest | None = None
    """Digest of the key before a rotation."""

    previous_until: AwareDatetime | None = None
    """When the previous key stops working, with a time zone: `2027-01-31T00:00:00+09:00`."""

    scope: Literal["inference", "admin"] | tuple[str, ...] = "inference"
    """`inference`: asking models. `admin`: also the routes that change or reveal what a service
    holds. A list of services: asking these services only."""

    sources: Networks | None = None
    """Networks that the client may call from; none: wherever the gateway can be reached from."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    """Most requests in a minute; none: no limit."""

    burst: int = Field(default=10, ge=0, le=100_000)
    """Requests that may come at once, ahead of the pace of `requests_per_minute`."""

    concurrent_streams: int | None = Field(default=None, ge=1, le=65_535)
    """Most requests answered at the same time; none: no limit."""

    expires: AwareDatetime | None = None
    """When all keys of the client stop working, with a time zone; no deploy is needed for it."""

    revoked: bool = False
    """Refuse the client's keys, and go on showing its name in the logs when they are tried."""

    @model_validator(mode="after")
    def _rotation_is_whole(self) -> "ApiClient":
        if (self.previous_sha256 is None) != (self.previous_until is None):
            raise ValueError("previous_sha256 and previous_until only work together: give both")
        return self


class Gateway(Section):
    """nginx in front of the stack."""

    port: int = Field(default=8080, ge=1, le=65535)
    """Port that clients use."""

    addresses: tuple[IPv4Address | IPv6Address, ...] = (
        IPv4Address("0.0.0.0"),  # noqa: S104 - the firewall and the keys say who comes in
        IPv6Address("::"),
    )
    """Addresses of the host that the port is opened on."""

    sources: Networks = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
    """Networks that may reach the port; a key is needed all the same."""

    tls: Literal["ca", "files", "off"] = "ca"
    """`ca`: a certificate of the site's own authority; llmhost makes both and renews the first.
    `files`: a certificate that the site brings. `off`: keys and prompts cross the network in the
    clear."""

    names: tuple[Name, ...] = ()
    """Names and addresses that clients call the host by; a TLS client that asks for another name is
    turned away. None: the host's name in the inventory, its own name and its addresses."""

    ca_directory: Path = Path("~/.config/llmhost/ca")
    """Directory on the controller that holds the site's authority; made at the first deploy.
    Whoever deploys needs a copy. It holds a private key: never commit it."""

    certificate_days: int = Field(default=730, ge=1, le=825)
    """For how long a certificate of the authority is valid."""

    renew_days: int = Field(default=90, ge=0, le=800)
    """A deploy renews a certificate of the authority that ends within this time."""

    certificate: Path | None = None
    """With `gateway_tls = "files"`: the certificate and its chain, a PEM file on the controller."""

    certificate_key: Path | None = None
    """With `gateway_tls = "files"`: its private key, a PEM file on the controller."""

    upstreams: tuple[Upstream, ...] = ()
    """LLM servers that this host is the gateway of: records of `name` (the server's in the
    inventory), `address` and `port` (its `gateway_port`). They all run the same services in the
    same order, and this host runs none."""

    upstream_services: tuple[str, ...] = ()
    """With `gateway_upstreams`: what the servers declare as `services`, in their order."""

    upstream_key: SecretReference | None = None
    """With `gateway_upstreams`: where the key that the servers know this gateway by is on the
    controller, `env:NAME` or `file:PATH`. It is one of the servers' `api_clients`."""

    upstream_tls: Literal["ca", "files", "off"] = "ca"
    """With `gateway_upstreams`: whether the servers' certificates come from the site's own
    authority (`ca`) or from the one in `gateway_upstream_authority` (`files`). `off`: the servers
    speak plain HTTP, and keys and prompts cross the network in the clear."""

    upstream_name: Name | None = None
    """With `gateway_upstreams`: a host name that all servers list in their `gateway_names`, so
    that their certificates are for it."""

    upstream_authority: Path | None = None
    """With `gateway_upstream_tls = "files"`: certificates of the authorities that the servers'
    certificates come from, a PEM file on the controller."""

    read_timeout_seconds: int = Field(default=900, ge=60)
    """Longest silence of an engine: a cold model load must fit in."""

    max_body_mib: int = Field(default=64, ge=1)
    """Largest request body."""

    stranger_requests_per_minute: int = Field(default=60, ge=1)
    """Pace at which an address may be told that it has no valid key; beyond it, 429."""

    stranger_burst: int = Field(default=20, ge=0)
    """Refusals of an address that may come at once, ahead of that pace."""

    status_port: int = Field(default=8079, ge=1, le=65535)
    """Port on 127.0.0.1 where nginx tells how it is, without a key."""

    metrics_port: int | None = Field(default=3903, ge=1, le=65535)
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
