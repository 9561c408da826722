"""Mistakes in the options that send requests where their model is."""

from collections.abc import Iterator, Mapping, Sequence

from llmhost.gateway.models import (
    MODEL_PATHS,
    ModelPlace,
    ModelRoutes,
    fallbacks_of,
    is_engine,
    is_routed,
    model_places,
    model_routes,
)
from llmhost.gateway.policy import ClientPolicy
from llmhost.gateway.routes import exposed_routes, usable_models
from llmhost.inventory.problem import Problem
from llmhost.inventory.site import Site, SiteHost, servers_of
from llmhost.settings import Settings

_FALLBACKS, _SHARES, _MODELS = "gateway_fallbacks", "gateway_shares", "gateway_upstream_models"


def model_route_problems(settings: Settings) -> Iterator[Problem]:
    """Rules between models, their places, fallbacks and shares of one host."""
    yield from _misplaced_models(settings)
    places = model_places(settings)
    gateway = settings.gateway
    for option, given in ((_FALLBACKS, gateway.fallbacks), (_SHARES, gateway.shares)):
        if given and not gateway.by_model:
            what = f"is declared, and {option} needs the model of a request"
            yield Problem("gateway_by_model", what, f"remove it, or remove {option}")
    if gateway.upstreams:
        known = {place.model for place in places}
        for name in _named(gateway.fallbacks):
            if name not in known:
                yield _unknown(_FALLBACKS, name, known)
    yield from _cycles(gateway.fallbacks)
    yield from _unfit_fallbacks(settings, places)
    # A member of a group has the options of its head, which answers.
    for model, shares in () if settings.only_computes_for else gateway.shares.items():
        found = [place.name for place in places if place.model == model]
        yield from _unfit_shares(model, shares, found, {place.model for place in places})


def site_model_problems(host: SiteHost, site: Site) -> Iterator[Problem]:
    """Rules between a gateway and the servers behind it that are in the same inventory."""
    gateway = host.settings.gateway
    if gateway.upstreams:
        yield from _unlike_servers(host, site)
        yield from _narrower_scopes(host, site)
        yield from _wider_fallbacks(host, site)
        return
    known = {place.model for each in site.values() for place in model_places(each.settings)}
    for name in _named(gateway.fallbacks):
        if name not in known:
            yield _unknown(_FALLBACKS, name, known)


def _named(fallbacks: Mapping[str, Sequence[str]]) -> list[str]:
    return [*dict.fromkeys(name for key, names in fallbacks.items() for name in (key, *names))]


def _unknown(option: str, name: str, known: set[str]) -> Problem:
    fix = f"write names such as {', '.join(sorted(known))}" if known else "declare the models first"
    return Problem(option, f"'{name}' is not a model", fix)


def _cycles(fallbacks: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    reported: set[str] = set()
    for first in fallbacks:
        cycle = _cycle(fallbacks, [first])
        if cycle and not reported & {*cycle}:
            reported |= {*cycle}
            way = " → ".join([*cycle, cycle[0]])
            what = f"leads from '{cycle[0]}' back to it: {way}"
            yield Problem(_FALLBACKS, what, "remove one of these fallbacks")


def _cycle(fallbacks: Mapping[str, Sequence[str]], way: list[str]) -> list[str]:
    """The models on a way that leads back to its start; empty if there is none."""
    for name in fallbacks.get(way[-1], ()):
        if name == way[0]:
            return way
        if name not in way and (found := _cycle(fallbacks, [*way, name])):
            return found
    return []


def _unfit_fallbacks(settings: Settings, places: Sequence[ModelPlace]) -> Iterator[Problem]:
    tasks = {place.model: place.task for place in places}
    adapters = {adapter.name for model in settings.models for adapter in model.adapters}
    for model, fallbacks in settings.gateway.fallbacks.items():
        for name in (model, *fallbacks):
            if tasks.get(name, "generate") != "generate":
                what = f"'{name}' does not generate text, and results of other models differ"
                yield Problem(_FALLBACKS, what, "write models with task = 'generate'")
        if settings.gateway.upstreams:
            continue
        own = {place.service for place in places if place.model == model}
        for name in fallbacks:
            if name in adapters:
                what = f"'{name}' is an adapter, which its engine knows by this name only"
                yield Problem(_FALLBACKS, what, "write the name of a model")
            if own and own == {place.service for place in places if place.model == name}:
                what = f"'{name}' runs in the same service as '{model}', and is down when that is"
                yield Problem(_FALLBACKS, what, "write a model of another service")
    if not settings.gateway.upstreams:
        yield from _two_in_one_service(settings, places)


def _two_in_one_service(settings: Settings, places: Sequence[ModelPlace]) -> Iterator[Problem]:
    """A service knows the name of a model that it does not run as one of its own models only."""
    fallbacks = settings.gateway.fallbacks
    for model in fallbacks:
        answering: dict[str, str] = {}
        services = {place.service for place in places if place.model == model}
        for name in fallbacks_of(fallbacks, model):
            for service in dict.fromkeys(p.service for p in places if p.model == name):
                first = answering.setdefault(service, name)
                if service not in services and first != name:
                    what = f"'{name}' runs in the same service as '{first}', which already answers"
                    fix = "write at most one model of each service"
                    yield Problem(_FALLBACKS, f"{what} there for '{model}'", fix)


def _unfit_shares(
    model: str, shares: Mapping[str, int], places: Sequence[str], known: set[str]
) -> Iterator[Problem]:
    if not places:
        yield _unknown(_SHARES, model, known)
        return
    for name in shares:
        if name not in places:
            what = f"'{name}' does not run '{model}'"
            yield Problem(_SHARES, what, f"write shares of: {', '.join(places)}")
    for name in places:
        if name not in shares:
            what = f"'{model}' has no share for '{name}', which runs it, too"
            yield Problem(_SHARES, what, "write one; 0 means that it gets no requests")
    if not any(shares.values()):
        yield Problem(_SHARES, f"'{model}' has no share above 0", "write at least one")


def _misplaced_models(settings: Settings) -> Iterator[Problem]:
    gateway = settings.gateway
    if gateway.upstream_models and not gateway.upstreams:
        what = "are models of servers behind a gateway, and this host has none"
        yield Problem(_MODELS, what, "remove it, or list the servers in gateway_upstreams")
        return
    servers = {server.name for server in gateway.upstreams}
    placed = {(place.model, place.service) for place in model_places(settings)}
    seen: set[tuple[str, str]] = set()
    for index, model in enumerate(gateway.upstream_models):
        key = f"{_MODELS}[{index}]"
        if model.service not in gateway.upstream_services:
            what = f"'{model.service}' is not one of gateway_upstream_services"
            yield Problem(f"{key}.service", what, "add it there, or correct it here")
        elif not {*model.servers} - servers and (model.name, model.service) not in placed:
            what = f"'{model.service}' has no routes of OpenAI's API"
            yield Problem(f"{key}.service", what, "write the service that answers requests")
        for name in model.servers:
            if name not in servers:
                fix = f"write names of: {', '.join(sorted(servers))}"
                yield Problem(f"{key}.servers", f"'{name}' is not one of gateway_upstreams", fix)
        for name in model.servers or sorted(servers):
            if (model.name, name) in seen:
                what = f"'{model.name}' is declared twice for {name}"
                yield Problem(f"{key}.name", what, "keep one, or name the servers of each")
            seen.add((model.name, name))


def _unlike_servers(host: SiteHost, site: Site) -> Iterator[Problem]:
    """What the gateway would send to a server that does not answer it."""
    routes = model_routes(host.settings)
    for place in model_places(host.settings) if routes else ():
        if not (found := _server(place.name, host, site)):
            continue
        server = found.settings
        same = [
            each
            for each in model_places(server)
            if (each.model, each.service) == (place.model, place.service)
        ]
        if not same:
            what = f"{place.name} does not run '{place.model}' with the service '{place.service}'"
            yield Problem(_MODELS, what, "correct its servers or its service")
        elif (same[0].task, same[0].context_tokens) != (place.task, place.context_tokens):
            what = f"'{place.model}' has another task or context_tokens on {place.name}"
            yield Problem(_MODELS, what, "write what its models declare")
        elif not is_routed(server) and server.offered[0].name != place.service:
            what = f"{place.name} answers at /v1 with '{server.offered[0].name}' alone, and"
            what += f" '{place.model}' runs in '{place.service}'"
            fix = f"remove gateway_by_model of {place.name}, or this model"
            yield Problem(_MODELS, what, fix)
    used = {
        (model, place.name)
        for (model, _), steps in (routes.steps if routes else {}).items()
        for step in steps
        for place in (routes.upstreams[step].places if routes else ())
    }
    yield from _unprepared_servers(sorted(used), host, site)


def _narrower_scopes(host: SiteHost, site: Site) -> Iterator[Problem]:
    """Clients whose scope has some of the services among which a server chooses by the model of a
    request: it knows the gateway's key only, and would answer for all of them."""
    left = {each.path for each in exposed_routes(host.settings) if not each.models} & MODEL_PATHS
    if is_routed(host.settings) and not left:
        return
    gateway = host.settings.gateway
    for server in gateway.upstreams:
        if found := _server(server.name, host, site):
            settings = found.settings
            places = model_places(settings) if is_routed(settings) else ()
            services = {place.service for place in places}
        else:
            known = gateway.upstream_services if gateway.by_model else ()
            services = {each for each in known if is_engine(each)}
        for client in host.settings.api_clients:
            scope = set() if isinstance(client.scope, str) else {*client.scope}
            if scope & services and services - scope:
                what = f"is missing: the scope of '{client.name}' lacks {_among(services - scope)},"
                what += f" which {server.name} would answer for at the same address"
                yield Problem(_MODELS, what, "declare the models, so that this gateway chooses")
                return


def _wider_fallbacks(host: SiteHost, site: Site) -> Iterator[Problem]:
    """Servers that would answer with a model that a client's scope lacks: they know the gateway's
    key only."""
    routes = model_routes(host.settings)
    for index, client in enumerate(host.settings.api_clients if routes else ()):
        policy = ClientPolicy.of(client)
        usable = {*usable_models(policy, routes)} if routes else set()
        for model, name in () if policy.may_infer or not routes else _answering(routes, usable):
            lacking = _others_at(name, model, host, site) - usable
            if lacking:
                what = f"lacks {_among(lacking)}, with which {name} answers for"
                what += f" '{model}' if that is down or full"
                fix = f"add it, or remove these gateway_fallbacks of {name}"
                yield Problem(f"api_clients[{index}].scope", what, fix)


def _answering(routes: ModelRoutes, usable: set[str]) -> list[tuple[str, str]]:
    """The models that a client may request, each with the servers that may get the request."""
    found = (
        (model, place.name)
        for model, path in routes.steps
        if model in usable
        for step in routes.steps_within(model, path, usable)
        for place in routes.upstreams[step].places
    )
    return [*dict.fromkeys(found)]


def _others_at(name: str, model: str, host: SiteHost, site: Site) -> set[str]:
    """Models with which a server answers for this one by itself."""
    if server := _server(name, host, site):
        routes = model_routes(server.settings)
        steps = {
            step
            for (asked, _), found in (routes.steps if routes else {}).items()
            for step in found
            if asked == model
        }
        return {routes.upstreams[step].model for step in steps} - {model} if routes else set()
    chain = fallbacks_of(host.settings.gateway.fallbacks, model)
    there = {each.model for each in model_places(host.settings) if each.name == name}
    return there & {*chain}


def _server(name: str, host: SiteHost, site: Site) -> SiteHost | None:
    """The host that is this server of a gateway, if the inventory has it."""
    servers = (each for each in host.settings.gateway.upstreams if each.name == name)
    return next((found for each in servers for found in servers_of(each, site)), None)


def _among(services: set[str]) -> str:
    return " and ".join(sorted(services))


def _unprepared_servers(
    used: Sequence[tuple[str, str]], host: SiteHost, site: Site
) -> Iterator[Problem]:
    for model, name in used:
        found = _server(name, host, site)
        server = found.settings if found else None
        if server is None or any(place.model == model for place in model_places(server)):
            continue
        routes = model_routes(server) if is_routed(server) else None
        if not routes or model not in routes.models:
            what = f"'{model}' falls back to a model of {name}, which does not know that name"
            yield Problem(_FALLBACKS, what, f"declare the same gateway_fallbacks for {name}")
