"""The complete configuration of nginx: routes, clients and limits as declared.

It depends only on Settings and the declared certificate, never on the clock: a deploy renders the
same files until the inventory changes.
"""

from dataclasses import dataclass

from llmhost.gateway.metrics import MetricsRoute, gateway_clients, metrics_routes
from llmhost.gateway.models import CARD, ModelRoutes, model_places, model_routes
from llmhost.gateway.policy import Rate, key_maps, policies_of
from llmhost.gateway.pool import AUTHORITY, Pool
from llmhost.gateway.routes import (
    PARAMETER,
    counted_paths,
    engine_paths,
    exposed_pages,
    exposed_routes,
    grants,
    methods_by_path,
    pattern_groups,
    pattern_places,
    usable_models,
)
from llmhost.gateway.tls import CERTIFICATE, Tls
from llmhost.gateway.x509 import names_in
from llmhost.resources import FILES
from llmhost.secret import read_secret
from llmhost.services.base import GATEWAY
from llmhost.settings import Settings
from llmhost.system.files import File
from llmhost.template import render

UPSTREAM_KEY = "upstream-key.conf"
"""API key of this gateway for its upstreams, readable by root only."""

TOKENS = "tokens.js"
"""The filter of answers that counts tokens."""

STATIC = FILES / "gateway"

GROUP_WAIT_SECONDS = 30
"""When clients should ask again after an engine group has lost a member."""

STOPPED_WAIT_SECONDS = 60
"""When clients should ask again for a stopped service: the OpenAI SDKs ignore more."""

STOPPED = "/_llmhost/stopped/"
"""Path, followed by a service, at which a gateway in front asks whether this service is stopped."""


@dataclass(frozen=True)
class NginxPaths:
    """Paths of nginx on Debian and Ubuntu."""

    configuration: str = "/etc/nginx"
    pid: str = "/run/nginx.pid"
    logs: str = "/var/log/nginx"
    counters: str = "/var/lib/llmhost-gateway"

    @property
    def own(self) -> str:
        """Directory of all files except nginx.conf; it contains nothing else."""
        return f"{self.configuration}/llmhost"


def configuration(settings: Settings, places: NginxPaths) -> tuple[File, ...]:
    """The configuration of nginx, without the files that depend on the host's state."""
    maps = key_maps(gateway_clients(settings))
    # Digests are not secret, but only root needs to read them.
    private: dict[str, str | bytes] = {**maps}
    if settings.gateway.tls == "files":
        private[CERTIFICATE] = _brought(settings)
    if settings.gateway.upstream_key and settings.gateway.upstreams:
        key = read_secret(settings.gateway.upstream_key)
        private[UPSTREAM_KEY] = render(f"gateway/{UPSTREAM_KEY}.j2", key=key)
    public: dict[str, str | bytes] = {
        path.name: path.read_text() for path in sorted(STATIC.glob("*.conf"))
    }
    if settings.gateway.count_tokens:
        public[TOKENS] = (STATIC / TOKENS).read_text()
    entries = maps["keys.map"].count("\n")
    if models := model_routes(settings):
        by_model = _by_model(settings, models)
        entries = max(entries, by_model["model-routes.conf"].count("\n"))
        public |= by_model
    if settings.gateway.upstream_tls == "files" and settings.gateway.upstream_authority:
        public[AUTHORITY] = settings.gateway.upstream_authority.expanduser().read_bytes()
    return (
        File(
            f"{places.configuration}/nginx.conf",
            _main(settings, places, entries),
        ),
        *(File(f"{places.own}/{path}", content) for path, content in public.items()),
        *(File(f"{places.own}/{path}", content, mode="0600") for path, content in private.items()),
    )


def _by_model(settings: Settings, models: ModelRoutes) -> dict[str, str]:
    """What routes requests by their model."""
    gateway, exposed = settings.gateway, exposed_routes(settings)
    numbered = [*enumerate(policies_of(gateway_clients(settings)), start=1)]
    usable = {number: usable_models(policy, models) for number, policy in numbered}
    static = {path.name: path.read_text() for path in sorted((STATIC / "models").glob("*.conf"))}
    lists = {number: _parts(models.listed(names)) for number, names in usable.items()}
    most_parts = max(map(len, lists.values()), default=0)
    return {
        **static,
        "model-routes.conf": render(
            "gateway/model-routes.conf.j2",
            routes=models,
            variables=[
                *("gateway_model_asked", "gateway_step_taken", "gateway_last_address"),
                *(f"gateway_step_{number}" for number in range(1, models.most_steps + 1)),
            ],
            behind=bool(gateway.upstreams),
            stopped=settings.stack.stopped,
            only={n: usable[n] for n, policy in numbered if not policy.may_infer},
            lists=lists,
            most_parts=most_parts,
            cards={
                number: {name: models.cards[name] for name in names if name in models.cards}
                for number, names in usable.items()
            },
            card_prefix=CARD.partition("{")[0],
        ),
        "model-steps.conf": render(
            "gateway/model-steps.conf.j2",
            routes=models,
            exposed={route.path for route in exposed if route.models},
            checked={route.path for route in exposed if route.models and route.fields},
            behind=bool(gateway.upstreams),
            counts_tokens=gateway.count_tokens,
            most_parts=most_parts,
            stopped=settings.stack.stopped,
            scheme="https" if gateway.upstreams and gateway.upstream_tls != "off" else "http",
        ),
    }


def _parts(text: str) -> list[str]:
    """A text in parts of which each fits into a parameter of nginx."""
    return [text[start : start + PARAMETER] for start in range(0, len(text), PARAMETER)]


def _main(settings: Settings, places: NginxPaths, entries: int) -> str:
    policies, routes = policies_of(gateway_clients(settings)), exposed_routes(settings)
    models, patterns = model_routes(settings), pattern_places(routes)
    granted = grants(policies, routes, models)
    names = {place.model: "" for place in model_places(settings)} | settings.gateway.fallbacks
    return render(
        "gateway/nginx.conf.j2",
        by_model=models is not None,
        counted=counted_paths(routes),
        engine_paths=engine_paths(routes),
        fields={route.path: route.fields for route in routes if route.fields},
        gateway=settings.gateway,
        grants=granted,
        group_wait_seconds=GROUP_WAIT_SECONDS,
        leads_group=settings.leads_group,
        listen=listen_addresses(settings, settings.gateway.port),
        map_size=_map_size(max(entries, len(granted))),
        methods=methods_by_path(routes),
        model_names=names,
        pages=exposed_pages(settings),
        pattern_groups=[*pattern_groups(patterns)],
        pattern_places=patterns,
        places=places,
        policies=policies,
        quotas=any(policy.tokens for policy in policies),
        rates=sorted({policy.rate for policy in policies if policy.rate}),
        routes=routes,
        services=[
            (each.name, settings.options(each.name).port, each.closes_after_streams)
            for each in (() if settings.gateway.upstreams else settings.offered)
        ]
        + [(each.upstream, each.port, False) for each in _programs(settings)],
        offered=[each.name for each in settings.offered],
        stopped="" if settings.gateway.upstreams else settings.stack.stopped,
        stopped_path=STOPPED,
        stopped_wait_seconds=STOPPED_WAIT_SECONDS,
        stranger_patience=Rate(settings.gateway.stranger_requests_per_minute, 0).patience_seconds,
        stream_limits=sorted({policy.streams for policy in policies if policy.streams}),
        tls=settings.gateway.tls != "off",
        uis=[
            (name, ui, listen_addresses(settings, ui.ui_port)) for name, ui in settings.uis.items()
        ],
    )


def _programs(settings: Settings) -> tuple[MetricsRoute, ...]:
    """A route to each program that has metrics."""
    return tuple({each.upstream: each for each in metrics_routes(settings)}.values())


def _map_size(entries: int) -> int:
    """Buckets for nginx's maps: nginx warns if there are fewer than entries."""
    return max(2048, 1 << (4 * entries).bit_length())


def listen_addresses(settings: Settings, port: int) -> tuple[str, ...]:
    """`address:port` in nginx's notation."""
    return tuple(
        f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        for address in settings.gateway.addresses
    )


def tls(settings: Settings) -> Tls | None:
    """TLS of the gateway; None without TLS."""
    gateway = settings.gateway
    if gateway.tls == "off":
        return None
    ports = (gateway.port, *(ui.ui_port for ui in settings.uis.values()))
    listen = tuple(each for port in ports for each in listen_addresses(settings, port))
    inner = (GATEWAY,) if settings.gateway_callers else ()
    if gateway.tls == "files":
        return Tls(listen, gateway.names or tuple(names_in(_brought(settings))), inner=inner)
    return Tls(
        listen,
        gateway.names,
        gateway.ca_directory.expanduser(),
        gateway.certificate_days,
        gateway.renew_days,
        inner,
    )


def pool(settings: Settings) -> Pool | None:
    """The servers behind the gateway; None on an LLM server."""
    gateway = settings.gateway
    if not gateway.upstreams:
        return None
    own = gateway.upstream_tls == "ca"
    models = model_routes(settings)
    return Pool(
        gateway.upstreams,
        gateway.ca_directory.expanduser() if own else None,
        tuple(models.upstreams.items()) if models else (),
    )


def _brought(settings: Settings) -> bytes:
    """The site's own certificate and its key, joined; `gateway_rules` has checked them."""
    paths = (settings.gateway.certificate, settings.gateway.certificate_key)
    return b"\n".join(path.expanduser().read_bytes() for path in paths if path)
