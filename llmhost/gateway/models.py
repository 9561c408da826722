"""Which models the gateway offers, and where a request for each of them goes. Pure.

A model can be at several places: services of this host, or servers behind it. Each step of its
route is an upstream of nginx: first its own places, then those of its fallbacks.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from llmhost.services import catalogue
from llmhost.settings import Settings

LIST, CARD = "/v1/models", "/v1/models/{model}"
"""Paths at which the gateway itself answers which models there are."""

MODEL_PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/score",
    }
)
"""Paths of engines whose JSON body names a model."""

TEXT_PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/api/chat",
        "/api/generate",
    }
)
"""Paths at which a model reads a prompt and writes a text."""

PROMPT_PATHS = frozenset(
    {"/v1/embeddings", "/v1/rerank", "/v1/score", "/api/embed", "/api/embeddings"}
)
"""Paths at which a model only reads."""


@dataclass(frozen=True)
class ModelPlace:
    """One model at one place: `name` is that of the service, or of the server behind the gateway.

    `parallel` is how many requests it answers at once, None without a limit."""

    model: str
    task: str
    context_tokens: int
    service: str
    name: str
    endpoint: str
    parallel: int | None

    @property
    def paths(self) -> frozenset[str]:
        """Where its engine answers."""
        routes = catalogue()[self.service].routes
        return MODEL_PATHS & {route.path for route in routes if "POST" in route.methods}


@dataclass(frozen=True)
class UpstreamPlace:
    """A server of an nginx upstream; without a `share`, the least busy one is chosen."""

    name: str
    endpoint: str
    share: int | None
    limit: int | None


@dataclass(frozen=True)
class ModelUpstream:
    """One step of the route of a model."""

    model: str
    places: tuple[UpstreamPlace, ...]
    reuses_connections: bool

    @property
    def is_shared(self) -> bool:
        """Whether the inventory says how requests are shared."""
        return any(place.share is not None for place in self.places)

    @property
    def only_name(self) -> str:
        """The name of its places if they have the same one, otherwise empty."""
        names = {place.name for place in self.places}
        return names.pop() if len(names) == 1 else ""

    @property
    def answering(self) -> frozenset[str]:
        """Names of the places that get requests: all but those with a share of 0."""
        return frozenset(place.name for place in self.places if place.share != 0)


@dataclass(frozen=True)
class ModelRoutes:
    """Where requests go, by model and path: names of upstreams, in order."""

    upstreams: Mapping[str, ModelUpstream]
    steps: Mapping[tuple[str, str], tuple[str, ...]]
    places: tuple[ModelPlace, ...]
    default: str

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(sorted({path for _, path in self.steps}))

    @property
    def models(self) -> tuple[str, ...]:
        """All models that a request may name."""
        return tuple(dict.fromkeys(model for model, _ in self.steps))

    @property
    def most_steps(self) -> int:
        return max(map(len, self.steps.values()), default=0)

    def steps_within(self, model: str, path: str, models: Collection[str]) -> tuple[str, ...]:
        """The steps for a client that may use these models only: fallbacks, too, are among them."""
        steps = self.steps.get((model, path), ())
        return tuple(step for step in steps if self.upstreams[step].model in models)

    def answers(self, model: str, models: Collection[str]) -> bool:
        """Whether such a client gets answers for this model."""
        return any(self.steps_within(model, path, models) for path in self.paths)

    @cached_property
    def cards(self) -> Mapping[str, str]:
        """JSON about each model, as OpenAI's API has it, with its task and context."""
        return {
            place.model: json.dumps(
                {
                    "id": place.model,
                    "object": "model",
                    "created": 0,
                    "owned_by": "llmhost",
                    "task": place.task,
                    "context_length": place.context_tokens,
                },
                separators=(",", ":"),
            )
            for place in self.places
        }

    def listed(self, models: Iterable[str]) -> str:
        """JSON of the list of these models."""
        cards = ",".join(self.cards[model] for model in models if model in self.cards)
        return f'{{"object":"list","data":[{cards}]}}'


def model_places(settings: Settings) -> tuple[ModelPlace, ...]:
    """Every model at every place."""
    if settings.gateway.upstreams:
        return tuple(_behind(settings))
    return tuple(_here(settings))


def _here(settings: Settings) -> Iterator[ModelPlace]:
    engines = [each.name for each in settings.offered if is_engine(each.name)]
    for service in engines:
        endpoint = f"127.0.0.1:{settings.options(service).port}"
        for model in settings.models_of(service):
            for name in (model.name, *(adapter.name for adapter in model.adapters)):
                yield ModelPlace(
                    name,
                    model.task,
                    model.context_tokens,
                    service=service,
                    name=service,
                    endpoint=endpoint,
                    parallel=model.parallel,
                )


def _behind(settings: Settings) -> Iterator[ModelPlace]:
    for model in settings.gateway.upstream_models:
        for server in settings.gateway.upstreams:
            if is_engine(model.service) and server.name in (model.servers or (server.name,)):
                yield ModelPlace(
                    model.name,
                    model.task,
                    model.context_tokens,
                    service=model.service,
                    name=server.name,
                    endpoint=server.endpoint,
                    parallel=model.parallel,
                )


def is_engine(service: str) -> bool:
    """Whether a service answers requests that name a model."""
    known = catalogue().get(service)
    return known is not None and any(route.path in MODEL_PATHS for route in known.routes)


def is_routed(settings: Settings) -> bool:
    """Whether the model of a request decides where it goes: only if it makes a difference."""
    places = model_places(settings)
    if not settings.gateway.by_model or not places:
        return False
    if settings.gateway.upstreams or settings.gateway.fallbacks or settings.gateway.shares:
        return True
    first = settings.offered[0].name
    models = {place.model for place in places} - {each.name for each in settings.offered}
    scopes = [client.scope for client in settings.api_clients]
    named = {name for scope in scopes if not isinstance(scope, str) for name in scope}
    return {place.service for place in places} != {first} or bool(models & named)


def fallbacks_of(fallbacks: Mapping[str, Sequence[str]], model: str) -> tuple[str, ...]:
    """The fallbacks of a model, each followed by its own; ends in a cycle, too."""
    found = [model]

    def follow(name: str) -> None:
        for each in fallbacks.get(name, ()):
            if each not in found:
                found.append(each)
                follow(each)

    follow(model)
    return tuple(found[1:])


def other_names(settings: Settings, service: str) -> dict[str, tuple[str, ...]]:
    """Further names under which a service answers for its models: of those that fall back to them,
    unless it runs these too. The names are by model."""
    if not is_routed(settings) or settings.gateway.upstreams:
        return {}
    own = [place.model for place in model_places(settings) if place.name == service]
    names: dict[str, tuple[str, ...]] = {}
    for model in settings.gateway.fallbacks:
        targets = [each for each in fallbacks_of(settings.gateway.fallbacks, model) if each in own]
        if model not in own and targets:
            names[targets[0]] = (*names.get(targets[0], ()), model)
    return names


def model_routes(settings: Settings) -> ModelRoutes | None:
    """The routes of all models; None if the first service answers everything."""
    if not is_routed(settings):
        return None
    places = model_places(settings)
    fallbacks = settings.gateway.fallbacks
    names = dict.fromkeys([*(place.model for place in places), *fallbacks])
    upstreams: dict[ModelUpstream, str] = {}
    steps = {}
    for model in names:
        for path in sorted(MODEL_PATHS):
            offering = [place for place in places if path in place.paths]
            if settings.gateway.upstreams:
                offering = [*_answering(model, offering)]
            chain = (model, *fallbacks_of(fallbacks, model))
            found = [*_steps(settings, chain, offering)]
            # Without a step, the path is still one of models, and not of the first service.
            if any(place.model in chain for place in offering):
                steps[model, path] = tuple(
                    upstreams.setdefault(each, f"model_{len(upstreams) + 1}") for each in found
                )
    services = {place.service for place in places}
    default = places[0].model if len(services) == 1 else ""
    return ModelRoutes({name: each for each, name in upstreams.items()}, steps, places, default)


def _answering(model: str, offering: Sequence[ModelPlace]) -> Iterator[ModelPlace]:
    """Without other models of the servers that run it: their own gateways fall back to those."""
    own = {place.name for place in offering if place.model == model}
    yield from (place for place in offering if place.model == model or place.name not in own)


def _steps(
    settings: Settings, chain: Sequence[str], offering: Sequence[ModelPlace]
) -> Iterator[ModelUpstream]:
    """The upstream of each model of a chain; then the first one again, where requests may wait. A
    model whose places here all have a share of 0 gets no requests."""
    shares = settings.gateway.shares
    with_places = [
        model
        for model in chain
        if any(
            each.model == model and shares.get(model, {}).get(each.name) != 0 for each in offering
        )
    ]
    limited = len(with_places) > 1
    found = [_upstream(settings, model, offering, limited=limited) for model in with_places]
    yield from found
    if limited and any(place.limit for place in found[0].places):
        yield _upstream(settings, with_places[0], offering, limited=False)


def _upstream(
    settings: Settings, model: str, offering: Sequence[ModelPlace], *, limited: bool
) -> ModelUpstream:
    shares = settings.gateway.shares.get(model, {})
    found = [place for place in offering if place.model == model]
    places = tuple(
        UpstreamPlace(
            place.name,
            place.endpoint,
            share=shares.get(place.name),
            limit=place.parallel if limited else None,
        )
        for place in found
    )
    closing = any(catalogue()[place.service].closes_after_streams for place in found)
    behind = bool(settings.gateway.upstreams)
    return ModelUpstream(model, places, behind or not closing)
