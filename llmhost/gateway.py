"""What nginx is told: routes, clients and limits as declared, in the form its templates need.

Everything is a function of Settings alone, never of the clock, so that a deploy renders the same
files until an inventory changes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmhost.filetree import File
from llmhost.services.base import Method
from llmhost.settings.gateway import ApiClient, Network
from llmhost.settings.root import Settings
from llmhost.template import render

SCRIPT = Path(__file__).resolve().parent.parent / "files" / "gateway" / "gateway.js"

# Each has a reader and a writer in files/gateway/gateway.js.
VERDICT_VARIABLES = (
    "allow",
    "authenticate",
    "client",
    "key_digest",
    "path",
    "rate",
    "refusal",
    "retry_after",
    "stranger",
    "streams",
    "trace",
)


@dataclass(frozen=True)
class Places:
    """Where nginx keeps what: Debian's and Ubuntu's layout."""

    configuration: str = "/etc/nginx"
    pid: str = "/run/nginx.pid"
    logs: str = "/var/log/nginx"

    @property
    def own(self) -> str:
        """Directory of all files but nginx.conf; nothing else belongs there."""
        return f"{self.configuration}/llmhost"


@dataclass(frozen=True)
class ExposedRoute:
    """A path of the gateway and where it leads."""

    path: str
    service: str
    upstream_path: str
    methods: tuple[Method, ...]
    scope: str


@dataclass(frozen=True, order=True)
class Rate:
    """A pace and how far ahead of it a client may be."""

    per_minute: int
    burst: int

    def __str__(self) -> str:
        return f"{self.per_minute}/{self.burst}"


def exposed_routes(settings: Settings) -> tuple[ExposedRoute, ...]:
    """Every path that is passed on: the first service's at `/`, the others' below their names."""
    return tuple(
        ExposedRoute(
            route.path if position == 0 else f"/{service.name}{route.path}",
            service.name,
            route.path,
            route.methods,
            route.scope,
        )
        for position, service in enumerate(settings.catalogue)
        for route in service.routes
    )


def source_sets(clients: Sequence[ApiClient]) -> tuple[tuple[Network, ...], ...]:
    """The different lists of networks that clients are bound to."""
    return tuple(dict.fromkeys(client.sources for client in clients if client.sources))


def rates(clients: Sequence[ApiClient]) -> tuple[Rate, ...]:
    """The different rate limits: nginx needs one zone for each."""
    return tuple(sorted({rate for client in clients if (rate := _rate(client))}))


def stream_limits(clients: Sequence[ApiClient]) -> tuple[int, ...]:
    """The different limits of concurrent streams."""
    return tuple(sorted({client.concurrent_streams or 0 for client in clients} - {0}))


def _rate(client: ApiClient) -> Rate | None:
    if client.requests_per_minute is None:
        return None
    return Rate(client.requests_per_minute, client.burst)


def clients_map(clients: Sequence[ApiClient]) -> str:
    """nginx map from a key's digest to `name|scope|sources|rate|streams|until`.

    `sources` is a position in `source_sets`; `until` is in seconds since the epoch, or `revoked`;
    `-` stands for no limit. One line a key: a rotated client has two.
    """
    known = source_sets(clients)
    lines = (line for client in clients for line in _client_lines(client, known))
    return "# managed by llmhost: edit the inventory instead\n" + "".join(lines)


def _client_lines(client: ApiClient, known: Sequence[tuple[Network, ...]]) -> Iterator[str]:
    scope = client.scope if isinstance(client.scope, str) else " ".join(client.scope)
    sources = str(known.index(client.sources)) if client.sources else "-"
    fixed = [client.name, scope, sources, str(_rate(client) or "-")]
    fixed.append(str(client.concurrent_streams or "-"))
    ends = [client.expires.timestamp()] if client.expires else []
    yield _line(client.sha256, [*fixed, _until(client, ends)])
    if client.previous_sha256 and client.previous_until:
        ends.append(client.previous_until.timestamp())
        yield _line(client.previous_sha256, [*fixed, _until(client, ends)])


def _until(client: ApiClient, ends: Sequence[float]) -> str:
    if client.revoked:
        return "revoked"
    return str(int(min(ends))) if ends else "-"


def _line(key: str, fields: Sequence[str]) -> str:
    return f'{key} "{"|".join(fields)}";\n'


def routes_map(routes: Sequence[ExposedRoute]) -> str:
    """nginx map from a path to `service|methods|scope`."""
    lines = (
        _line(route.path, [route.service, " ".join(route.methods), route.scope]) for route in routes
    )
    return "# managed by llmhost: edit the inventory instead\n" + "".join(lines)


def _map_size(entries: int) -> int:
    """Buckets for nginx's maps: it warns of a slow start where they are fewer than the entries."""
    return max(2048, 1 << (4 * entries).bit_length())


def configuration(settings: Settings, places: Places) -> tuple[File, ...]:
    """The whole configuration tree of nginx."""
    clients, routes = settings.api_clients, exposed_routes(settings)
    keys = clients_map(clients)
    ports = [(service, settings.options(service).port) for service in settings.services]
    main = render(
        "gateway/nginx.conf.j2",
        gateway=settings.gateway,
        listen=listen_addresses(settings),
        map_size=_map_size(keys.count("\n") + len(routes)),
        places=places,
        rates=rates(clients),
        routes=routes,
        services=[{"name": service, "port": port} for service, port in ports],
        source_sets=source_sets(clients),
        stream_limits=stream_limits(clients),
        verdict_variables=VERDICT_VARIABLES,
    )
    return (
        File(f"{places.configuration}/nginx.conf", main),
        File(f"{places.own}/gateway.js", SCRIPT.read_text()),
        File(f"{places.own}/routes.map", routes_map(routes)),
        # Digests are no secrets, and nobody's business either.
        File(f"{places.own}/clients.map", keys, mode="0600"),
    )


def listen_addresses(settings: Settings) -> tuple[str, ...]:
    """`address:port` as nginx writes them."""
    port = settings.gateway.port
    return tuple(
        f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        for address in settings.gateway.addresses
    )
