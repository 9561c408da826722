"""Routes of the gateway, and the policies that may use them.

Patterns are matched by their longest literal prefix, like locations of nginx, so that the granted
route is the one that nginx uses.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from llmhost.gateway.metrics import SCOPE, metrics_routes
from llmhost.gateway.models import (
    CARD,
    LIST,
    PROMPT_PATHS,
    TEXT_PATHS,
    ModelRoutes,
    model_routes,
)
from llmhost.gateway.policy import ClientPolicy
from llmhost.services import catalogue
from llmhost.services.base import AnyService, Fields, Method, Route
from llmhost.settings import Settings

PARAMETER = 3000
"""Bytes for what varies in a parameter of nginx's configuration, which has 4,096 at most."""

_AROUND_A_PATTERN = 40
"""Bytes of its line in nginx.conf, without the pattern itself."""


@dataclass(frozen=True)
class ExposedRoute:
    """A path of the gateway and its upstream."""

    path: str
    service: str
    upstream_path: str
    methods: tuple[Method, ...]
    scope: str
    fields: Fields | None = None
    local: bool = False
    """To a program on this host, also on a gateway of other servers."""
    models: tuple[str, ...] = ()
    """Models that requests to this route may name; the gateway then chooses the service."""

    @property
    def prefix(self) -> str:
        """The path up to the first parameter; the whole path without parameters."""
        return self.path.partition("{")[0]

    @property
    def is_pattern(self) -> bool:
        return "{" in self.path

    @property
    def expression(self) -> str:
        """The pattern for Perl, with `$name` for a parameter, and `$file` for the segments of a
        rest; without backslashes and single quotes, which nginx would interpret."""
        return f"^{'/'.join(map(_expression, self.path.split('/')))}(?!.)"


def _expression(segment: str) -> str:
    if segment.startswith("{"):
        return "$file(?:/$file)*" if segment.endswith("...}") else "$name"
    return segment.replace(".", "[.]")


@dataclass(frozen=True)
class Location:
    """Patterns with the same prefix: one location of nginx."""

    prefix: str
    service: str
    upstream_prefix: str
    local: bool
    routes: tuple[ExposedRoute, ...]


@dataclass(frozen=True)
class ExposedPage:
    """A browser UI whose requests need a key, as its port serves it."""

    prefix: str
    files: tuple[tuple[str, str], ...]
    """Path and upstream path of each file."""
    routes: tuple[ExposedRoute, ...]

    @property
    def patterns(self) -> tuple[Location, ...]:
        return pattern_places(self.routes)


def exposed_routes(settings: Settings) -> tuple[ExposedRoute, ...]:
    """All routes: at `/` for the first service with routes, below `/NAME` for the others, at `/v1`
    for the models of all services, and below `/metrics` those to metrics."""
    routes = tuple(_routes_of_services(settings))
    by_model = tuple(_routes_by_model(settings, routes))
    taken = {route.path for route in by_model}
    own = (route for route in routes if route.path not in taken)
    return (*own, *by_model, *_routes_of_metrics(settings))


def _routes_of_metrics(settings: Settings) -> Iterator[ExposedRoute]:
    for each in metrics_routes(settings):
        yield ExposedRoute(
            each.path, each.upstream, each.upstream_path, each.methods, SCOPE, local=True
        )


def _routes_of_services(settings: Settings) -> Iterator[ExposedRoute]:
    for prefix, service in _prefixes(settings):
        fields = service.fields(settings.models_of(service.name))
        for route in service.routes:
            yield _exposed(prefix, service, route, fields.get(route.path))


def _routes_by_model(
    settings: Settings, of_services: Sequence[ExposedRoute]
) -> Iterator[ExposedRoute]:
    found = model_routes(settings)
    if not found:
        return
    declared = {route.path for route in of_services}
    # Whichever model a request names: the engine that reads a field is not known before.
    fields = {route.upstream_path: route.fields for route in of_services if route.fields}
    # What a first service without models declares at these paths is its own.
    engines = {place.service for place in found.places}
    is_engine = any(each.name in engines for each in settings.offered[:1])
    for path in (*found.paths, LIST, CARD):
        if is_engine or path not in declared:
            of_path = [model for model, each in found.steps if each == path]
            models = tuple(dict.fromkeys(of_path)) or found.models
            method: Method = "GET" if path in (LIST, CARD) else "POST"
            yield ExposedRoute(
                path, "", path, (method,), "inference", fields.get(path), models=models
            )


def exposed_pages(settings: Settings) -> dict[str, ExposedPage | None]:
    """The page of each declared browser UI, under the same paths as the routes; None where the UI
    has its own login."""
    pages = {
        service.name: ExposedPage(
            prefix,
            tuple((f"{prefix}{path}", path) for path in service.page.files),
            tuple(_exposed(prefix, service, route) for route in service.page.routes),
        )
        for prefix, service in _prefixes(settings)
        if service.page
    }
    return {name: pages.get(name) for name in settings.uis}


def _prefixes(settings: Settings) -> Iterator[tuple[str, AnyService]]:
    for position, service in enumerate(settings.offered):
        yield "" if position == 0 else f"/{service.name}", service


def _exposed(
    prefix: str, service: AnyService, route: Route, fields: Fields | None = None
) -> ExposedRoute:
    return ExposedRoute(
        f"{prefix}{route.path}",
        service.name,
        route.path,
        route.methods,
        route.scope,
        route.fields or fields,
    )


def pattern_places(routes: Iterable[ExposedRoute]) -> tuple[Location, ...]:
    """Locations of the patterns, the longest prefix first; a prefix belongs to one service."""
    patterns = [route for route in routes if route.is_pattern]
    patterns.sort(
        key=lambda route: (-len(route.prefix), route.prefix)
    )  # then in the declared order
    grouped = ((prefix, tuple(same)) for prefix, same in groupby(patterns, lambda r: r.prefix))
    return tuple(
        Location(
            prefix, same[0].service, same[0].upstream_path.partition("{")[0], same[0].local, same
        )
        for prefix, same in grouped
    )


def pattern_groups(places: Iterable[Location]) -> Iterator[list[tuple[str, ExposedRoute]]]:
    """Each pattern after its prefix, in the order of the places, in groups of which each fits into
    a parameter of nginx."""
    group: list[tuple[str, ExposedRoute]] = []
    size = 0
    for place in places:
        for route in {route.path: route for route in place.routes}.values():
            length = len(f"{place.prefix}{route.path}{route.expression}") + _AROUND_A_PATTERN
            if group and size + length > PARAMETER:
                yield group
                group, size = [], 0
            group.append((place.prefix, route))
            size += length
    if group:
        yield group


def methods_by_path(routes: Iterable[ExposedRoute]) -> dict[str, tuple[Method, ...]]:
    """Each path with all its methods; a service may declare a path in several scopes."""
    methods: dict[str, tuple[Method, ...]] = {}
    for route in routes:
        methods[route.path] = (*methods.get(route.path, ()), *route.methods)
    return methods


def counted_paths(routes: Iterable[ExposedRoute]) -> dict[str, str]:
    """Paths whose requests count for a quota of tokens, and what of them does: `prompt`, `text`
    (with the prompt), or `named`: of an app, which counts if its answer names a model."""
    return {route.path: what for route in routes if (what := _counted(route))}


def _counted(route: ExposedRoute) -> str:
    if "POST" not in route.methods or route.local or route.is_pattern:
        return ""
    if route.upstream_path in TEXT_PATHS:
        return "text"
    if route.upstream_path in PROMPT_PATHS:
        return "prompt"
    is_app = bool(route.service) and route.service not in catalogue()
    return "named" if is_app else ""


def engine_paths(routes: Iterable[ExposedRoute]) -> tuple[str, ...]:
    """Paths at which an engine answers with one of the declared models; an app has its own."""
    return tuple(
        route.path
        for route in routes
        if _counted(route) and (route.models or route.service in catalogue())
    )


def clashes(routes: Sequence[ExposedRoute]) -> Iterator[tuple[str, list[str]]]:
    """Paths, or prefixes of patterns, that several services declare, or one service twice with the
    same method; with the names of the services."""
    owners: dict[str, list[ExposedRoute]] = {}
    for route in routes:
        nameless = re.sub(r"\{\w+", "{", route.path)
        owners.setdefault(nameless, []).append(route)
    for path, rivals in owners.items():
        names = sorted({route.service for route in rivals})
        methods = [method for route in rivals for method in route.methods]
        if len(names) > 1 or len(set(methods)) < len(methods):
            yield path, names
    for place in pattern_places(routes):
        names = sorted({route.service for route in place.routes})
        if len(names) > 1:
            yield place.prefix, names


def usable_models(policy: ClientPolicy, routes: ModelRoutes) -> tuple[str, ...]:
    """Models that clients of a policy may name, in the declared order."""
    services: dict[str, set[str]] = {model: set() for model in routes.models}
    for model, path in routes.steps:
        for step in routes.steps[model, path]:
            if routes.upstreams[step].model == model or model not in routes.cards:
                services[model] |= {
                    place.service
                    for place in routes.places
                    if place.model == routes.upstreams[step].model
                }
    found = tuple(model for model in services if policy.may_use(model, services[model]))
    if policy.may_infer:
        return found
    return tuple(model for model in found if routes.answers(model, found))


def grants(
    policies: Sequence[ClientPolicy],
    routes: Sequence[ExposedRoute],
    models: ModelRoutes | None = None,
) -> tuple[tuple[int, Method, str], ...]:
    """Everything that is allowed: number of the policy, method and path."""
    usable = {policy: {*usable_models(policy, models)} for policy in policies} if models else {}
    return tuple(
        (number, method, route.path)
        for number, policy in enumerate(policies, start=1)
        for route in routes
        if policy.admits(route.service, route.scope) or usable.get(policy, set()) & {*route.models}
        for method in route.methods
    )
