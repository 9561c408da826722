"""`gateway_*` and `api_clients`: the only entry to the server."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from llmhost.options.adapter import Role
from llmhost.options.base import Section
from llmhost.options.kind import WORD, Kind, Listed, Mistake, each_of
from llmhost.options.networks import EVERYONE
from llmhost.options.types import (
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
    Table,
    Time,
    text,
    whole,
)
from llmhost.options.upstream import UpstreamModel, UpstreamServer

CA_CERTIFICATE = "ca.crt"

_PerMinute = Annotated[int, whole(1, 1_000_000, "requests", 60)]
_Burst = Annotated[int, whole(0, 100_000, "requests", 10)]

_SCOPES = ("inference", "admin", "metrics")
_SCOPED = text(r"[a-z0-9][a-z0-9._-]{0,62}", "the name of a service or a model", "ollama", WORD)


def _scope(value: object) -> object:
    if isinstance(value, str):
        if value not in _SCOPES:
            raise ValueError
        return value
    if not isinstance(value, list | tuple) or not value:
        raise TypeError
    names = each_of(_SCOPED, value)
    if len({*names}) < len(names):
        raise Mistake("has a name twice; keep one")
    return names


Scope = Annotated[
    Literal["inference", "admin", "metrics"] | tuple[str, ...],
    Kind(
        _scope,
        "'inference', 'admin', 'metrics' or a list of services and models",
        ["ollama"],
        WORD,
    ),
]


class ApiClient(Section):
    """One program or person that may call the gateway."""

    name: Name
    """Name in the logs."""

    sha256: Sha256
    """SHA-256 digest of the key, in lower-case hex; `llmhost key new NAME` prints it."""

    previous_sha256: Sha256 | None = None
    """Digest of the previous key, during a rotation."""

    previous_until: Time | None = None
    """When the previous key expires, with a time zone: `2027-01-31T00:00:00+09:00`."""

    scope: Scope = "inference"
    """`inference`: requests to models. `admin`: also routes that change or reveal a service's data,
    and fields that change an engine for all clients, such as Ollama's `keep_alive`. `metrics`:
    only the metrics of a host with `monitoring_enabled`. A list of services and models: inference
    on these services only, and these models only, which the client calls at `/v1`. A name of
    both means the service."""

    sources: Networks | None = None
    """Networks that the client may call from; none: all networks that can reach the gateway."""

    requests_per_minute: _PerMinute | None = None
    """Maximum requests in a minute; none: no limit."""

    burst: _Burst = 10
    """Requests accepted at once, in excess of `requests_per_minute`."""

    concurrent_streams: Annotated[int, whole(1, 65_535, "requests", 4)] | None = None
    """Maximum concurrent requests; none: no limit."""

    tokens_per_day: Annotated[int, whole(1, 10**12, "tokens", 1_000_000)] | None = None
    """Maximum tokens, read and written together, from midnight to midnight in the time zone of the
    host; after that requests get 429 until midnight. It needs `gateway_count_tokens`. The request
    that exceeds it is still answered. None: no limit."""

    expires: Time | None = None
    """When all keys of the client expire, with a time zone; no deploy is needed then."""

    revoked: Flag = False
    """Refuse the client's keys; the log still shows its name when they are used."""

    @model_validator(mode="after")
    def _rotation_is_whole(self) -> "ApiClient":
        if (self.previous_sha256 is None) != (self.previous_until is None):
            missing, other = "previous_sha256", "previous_until"
            if self.previous_until is None:
                missing, other = other, missing
            raise Mistake(f"is missing, and it only works together with {other}; add it", missing)
        return self


class Gateway(Section):
    """nginx in front of the services."""

    port: Port = 8080
    """Port for clients."""

    addresses: SomeItems[Address] = (
        IPv4Address("0.0.0.0"),  # noqa: S104 - the firewall and the keys decide who gets in
        IPv6Address("::"),
    )
    """Addresses of the host to listen on."""

    replaces_nginx: Flag = False
    """Take over an nginx that already serves other sites on the host. They end: llmhost replaces
    nginx.conf. Without it, such a host is refused."""

    sources: Networks = EVERYONE
    """Networks that may connect; a request still needs a key."""

    tls: OneOf[Literal["ca", "files", "off"]] = "ca"
    """`ca`: a certificate of the site's own authority, created and renewed by llmhost. `files`: a
    certificate of yours. `off`: no encryption of keys and prompts."""

    names: Items[HostName] = ()
    """Names and addresses in the certificate; TLS clients that use another name are refused. None:
    the host's inventory name, host name and addresses."""

    ca_directory: LocalPath = Path("~/.config/llmhost/ca")
    """Directory of the site's authority on the controller; the first deploy creates it. Everyone
    who deploys needs a copy. It contains a private key: never commit it."""

    certificate_days: Annotated[int, whole(1, 825, "days", 730)] = 730
    """Validity of a certificate."""

    renew_days: Annotated[int, whole(0, 800, "days", 90)] = 90
    """A deploy renews a certificate that expires within this time."""

    certificate: LocalPath | None = None
    """With `gateway_tls = "files"`: PEM file on the controller with the certificate and its
    chain."""

    certificate_key: LocalPath | None = None
    """With `gateway_tls = "files"`: PEM file on the controller with the private key."""

    upstreams: Annotated[tuple[UpstreamServer, ...], Listed(repeats=True)] = ()
    """LLM servers behind this gateway: records of `name` (in the inventory), `address` and `port`
    (their `gateway_port`). All run the same services in the same order; this host runs none."""

    upstream_services: Annotated[tuple[ServiceName, ...], Listed(repeats=True)] = ()
    """With `gateway_upstreams`: the `services` of the servers, in the same order."""

    upstream_key: SecretReference | None = None
    """With `gateway_upstreams`: where the controller finds the API key for the servers, `env:NAME`
    or `file:PATH`. Declare it in the servers' `api_clients`."""

    upstream_tls: OneOf[Literal["ca", "files", "off"]] = "ca"
    """With `gateway_upstreams`: `ca` if the servers' certificates come from the site's own
    authority, `files` if from `gateway_upstream_authority`. `off`: no encryption of keys and
    prompts between gateway and servers."""

    upstream_name: HostName | None = None
    """With `gateway_upstreams`: a host name that all servers have in `gateway_names`, and so in
    their certificates."""

    upstream_authority: LocalPath | None = None
    """With `gateway_upstream_tls = "files"`: PEM file on the controller with the certificates of
    the authorities that issued the servers' certificates."""

    upstream_models: Annotated[tuple[UpstreamModel, ...], Listed(repeats=True)] = ()
    """With `gateway_upstreams`: the models of the servers, if the model of a request decides which
    server answers it. None: each server can answer each request."""

    by_model: Flag = True
    """If several services run models: the model of a request decides which of them answers at
    `/v1`. False: the first service answers there."""

    fallbacks: Table[Role, SomeItems[Role]] = Field(default_factory=dict)
    """Models that answer instead of another one, in order, if that one is down or full:
    `{"brain": ["search"]}`. Full: it answers as many requests as its `parallel` allows. If these
    cannot answer either, a request waits for the first one. A client gets answers only of models
    that its `scope` covers."""

    shares: Table[Role, Table[Name, Annotated[int, whole(0, 1000, "parts", 90)]]] = Field(
        default_factory=dict
    )
    """For a model of several services (behind `gateway_upstreams`: several servers), how requests
    are shared between them: `{"brain": {"ollama": 90, "vllm": 10}}`."""

    read_timeout_seconds: Annotated[int, whole(60, 86_400, "seconds", 900)] = 900
    """Maximum time without data from an engine; must exceed the load time of a model."""

    max_body_mib: Annotated[int, whole(1, 65_536, "MiB", 64)] = 64
    """Maximum size of a request body."""

    stranger_requests_per_minute: _PerMinute = 60
    """Requests without a valid key from one address in a minute that are answered with 401; further
    ones get 429."""

    stranger_burst: _Burst = 20
    """Requests without a valid key that one address may send at once, in excess of that rate."""

    status_port: Port = 8079
    """Port on 127.0.0.1 for nginx's status page, without a key."""

    metrics_port: Port | None = 3903
    """Port on 127.0.0.1 for Prometheus metrics from the access log; none: no metrics."""

    log_days: Annotated[int, whole(1, 3_650, "days", 90)] = 14
    """How many days the access log is kept, and with it what `llmhost usage` counts."""

    count_tokens: Flag = False
    """Record the model and the tokens of each answer in the access log, for `llmhost usage`. It
    needs the package `libnginx-mod-http-js`, which Ubuntu 22.04 does not have."""

    @property
    def ca_certificate(self) -> Path | None:
        """File on the controller with which clients check a certificate of the site's own
        authority; it exists after the first deploy."""
        return self.ca_directory.expanduser() / CA_CERTIFICATE if self.tls == "ca" else None

    def url(self, host: str) -> str:
        """URL of the gateway under this name or address."""
        scheme = "http" if self.tls == "off" else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"
