"""nginx's configuration as a whole: routes, clients and limits as declared.

Everything is a function of Settings (and of the certificate that they name), never of the clock, so
that a deploy renders the same files until an inventory changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmhost.filetree import File
from llmhost.gateway_policy import Policy, Rate, key_maps, policies_of
from llmhost.gateway_tls import CERTIFICATE, Tls
from llmhost.services.base import Method, Service
from llmhost.settings.root import Settings
from llmhost.template import render
from llmhost.tls import names_in

STATIC = Path(__file__).resolve().parent.parent / "files" / "gateway"


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


def exposed_routes(settings: Settings) -> tuple[ExposedRoute, ...]:
    """Every path that is passed on: at `/` for the first service that has any, and below their
    names for the others."""
    return tuple(
        ExposedRoute(
            route.path if position == 0 else f"/{service.name}{route.path}",
            service.name,
            route.path,
            route.methods,
            route.scope,
        )
        for position, service in enumerate(_offered(settings))
        for route in service.routes
    )


def _offered(settings: Settings) -> tuple[Service, ...]:
    return tuple(service for service in settings.catalogue if service.routes)


def grants(
    policies: Sequence[Policy], routes: Sequence[ExposedRoute]
) -> tuple[tuple[int, Method, str], ...]:
    """Everything that is allowed, as number of the policy, method and path; nothing else is."""
    return tuple(
        (number, method, route.path)
        for number, policy in enumerate(policies, start=1)
        for route in routes
        if policy.admits(route.service, route.scope)
        for method in route.methods
    )


def configuration(settings: Settings, places: Places) -> tuple[File, ...]:
    """The whole configuration tree of nginx."""
    maps = key_maps(settings.api_clients)
    policies, routes = policies_of(settings.api_clients), exposed_routes(settings)
    main = render(
        "gateway/nginx.conf.j2",
        gateway=settings.gateway,
        grants=grants(policies, routes),
        listen=listen_addresses(settings),
        map_size=_map_size(maps["keys.map"].count("\n")),
        places=places,
        policies=policies,
        rates=sorted({policy.rate for policy in policies if policy.rate}),
        routes=routes,
        services=[(each.name, settings.options(each.name).port) for each in _offered(settings)],
        stranger_patience=Rate(settings.gateway.stranger_requests_per_minute, 0).patience_seconds,
        stream_limits=sorted({policy.streams for policy in policies if policy.streams}),
        tls=settings.gateway.tls != "off",
    )
    # Digests are no secrets, and nobody's business either.
    private = [File(f"{places.own}/{path}", text, mode="0600") for path, text in maps.items()]
    if settings.gateway.tls == "files":
        private.append(File(f"{places.own}/{CERTIFICATE}", _brought(settings), mode="0600"))
    static = sorted(STATIC.glob("*.conf"))
    return (
        File(f"{places.configuration}/nginx.conf", main),
        *(File(f"{places.own}/{path.name}", path.read_text()) for path in static),
        *private,
    )


def _map_size(entries: int) -> int:
    """Buckets for nginx's maps: it warns of a slow start where they are fewer than the entries."""
    return max(2048, 1 << (4 * entries).bit_length())


def listen_addresses(settings: Settings) -> tuple[str, ...]:
    """`address:port` as nginx writes them."""
    port = settings.gateway.port
    return tuple(
        f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        for address in settings.gateway.addresses
    )


def tls(settings: Settings) -> Tls | None:
    """How TLS clients call the gateway; None without TLS."""
    gateway = settings.gateway
    if gateway.tls == "off":
        return None
    if gateway.tls == "files":
        return Tls(listen_addresses(settings), gateway.names or tuple(names_in(_brought(settings))))
    return Tls(
        listen_addresses(settings),
        gateway.names,
        gateway.ca_directory.expanduser(),
        gateway.certificate_days,
        gateway.renew_days,
    )


def _brought(settings: Settings) -> bytes:
    """The site's own certificate and its key, in one; `gateway_rules` has looked at them."""
    paths = (settings.gateway.certificate, settings.gateway.certificate_key)
    return b"\n".join(path.expanduser().read_bytes() for path in paths if path)
