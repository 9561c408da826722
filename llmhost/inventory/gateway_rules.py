"""Mistakes in the options of the gateway, reported before anything changes."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from llmhost.gateway.models import is_routed, model_places
from llmhost.gateway.policy import policies_of
from llmhost.gateway.routes import clashes, exposed_routes
from llmhost.inventory.problem import Problem
from llmhost.options.networks import overlap
from llmhost.settings import Settings

MOST_RATES = 32


def gateway_problems(settings: Settings) -> Iterator[Problem]:
    """All rules between several options of the gateway, and expired clients and certificates."""
    yield from _shared_digests(settings)
    yield from _expired_clients(settings)
    yield from _impossible_clients(settings)
    yield from _uncounted_quotas(settings)
    yield from _clashing_routes(settings)
    yield from _too_many_rates(settings)
    yield from _unfit_certificate(settings)
    gateway = settings.gateway
    if gateway.tls == "ca" and gateway.renew_days >= gateway.certificate_days:
        what = f"is {gateway.renew_days}, and a certificate is valid for {gateway.certificate_days}"
        fix = "write less than gateway_certificate_days, or every deploy renews the certificate"
        yield Problem("gateway_renew_days", f"{what} days", fix)


def _shared_digests(settings: Settings) -> Iterator[Problem]:
    clients = settings.api_clients
    digests = Counter(
        digest for each in clients for digest in (each.sha256, each.previous_sha256) if digest
    )
    for index, client in enumerate(clients):
        if digests[client.sha256] > 1:
            yield Problem(
                f"api_clients[{index}].sha256",
                "is declared more than once, so the log could not show which client called",
                f"create another key for '{client.name}': llmhost key rotate {client.name} FILE",
            )


def _expired_clients(settings: Settings) -> Iterator[Problem]:
    now = datetime.now(UTC)
    for index, client in enumerate(settings.api_clients):
        if client.expires and client.expires <= now and not client.revoked:
            yield Problem(
                f"api_clients[{index}].expires",
                f"'{client.name}' has expired",
                f"write a later time, or revoke it: llmhost key revoke {client.name} FILE",
            )


def _uncounted_quotas(settings: Settings) -> Iterator[Problem]:
    if settings.gateway.count_tokens:
        return
    for index, client in enumerate(settings.api_clients):
        if client.tokens_per_day:
            yield Problem(
                f"api_clients[{index}].tokens_per_day",
                f"'{client.name}' has a quota of tokens, which the gateway does not count",
                "set gateway_count_tokens, or remove the quota",
            )


def _impossible_clients(settings: Settings) -> Iterator[Problem]:
    # Members of an engine group have the same clients, and one of them answers.
    of_head = settings.services if settings.serves_a_head else ()
    offered = {*(service.name for service in settings.offered), *of_head}
    places = model_places(settings) if is_routed(settings) else ()
    models = {place.model for place in places}
    if settings.serves_a_head:
        models |= {model.name for model in settings.models}
        models |= {adapter.name for model in settings.models for adapter in model.adapters}
    elsewhere = {place.model for place in places if place.model != place.service} & offered
    for index, client in enumerate(settings.api_clients):
        for name in () if isinstance(client.scope, str) else client.scope:
            if name in elsewhere:
                yield Problem(
                    f"api_clients[{index}].scope",
                    f"'{client.name}' may call '{name}', which is both a service and a model",
                    "give the model another name",
                )
            if name not in offered | models:
                yield Problem(
                    f"api_clients[{index}].scope",
                    f"'{client.name}' may call '{name}', which is neither a service nor a model",
                    f"add '{name}' to services, or remove it from the scope",
                )
        for network in client.sources or ():
            if not any(overlap(network, each) for each in settings.gateway.sources):
                yield Problem(
                    f"api_clients[{index}].sources",
                    f"'{client.name}' may call from a network that cannot reach the gateway",
                    "add the network to gateway_sources, or remove it here",
                )


def _clashing_routes(settings: Settings) -> Iterator[Problem]:
    for request, owners in clashes(exposed_routes(settings)):
        if all("." in owner for owner in owners):
            continue  # names of metrics: monitoring_rules
        yield Problem(
            "services",
            f"{' and '.join(owners)} both answer at {request}",
            "list the service that should answer there first, or remove one",
        )


def _too_many_rates(settings: Settings) -> Iterator[Problem]:
    """nginx needs memory, and a comparison at each request, for every distinct rate."""
    rates = {policy.rate for policy in policies_of(settings.api_clients) if policy.rate}
    if len(rates) > MOST_RATES:
        yield Problem(
            "api_clients",
            f"{len(rates)} different pairs of requests_per_minute and burst are declared",
            f"use at most {MOST_RATES} pairs, which clients can share",
        )


def _unfit_certificate(settings: Settings) -> Iterator[Problem]:
    """The site's own certificate is checked before any host is contacted."""
    gateway = settings.gateway
    given = {"certificate": gateway.certificate, "certificate_key": gateway.certificate_key}
    if gateway.tls != "files":
        return
    contents = {}
    for option, path in given.items():
        try:
            contents[option] = path.expanduser().read_bytes() if path else b""
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
            yield Problem(f"gateway_{option}", what, "write the path of a file on the controller")
        if not path:
            what = 'is missing, and gateway_tls = "files" requires it'
            yield Problem(f"gateway_{option}", what, "write the path of a PEM file")
    if all(contents.get(option) for option in given):
        from llmhost.gateway.x509 import pair_faults  # slow to import, and few sites need it

        now = datetime.now(UTC)
        pair = (contents["certificate"], contents["certificate_key"])
        faults = pair_faults(*pair, gateway.names, now)
        for option, what in faults.items():
            yield Problem(f"gateway_{option}", what, "write the paths of a certificate and its key")
