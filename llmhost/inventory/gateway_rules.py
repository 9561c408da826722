"""Mistakes in what the gateway is asked to do, told before anything changes."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from llmhost.gateway.policy import policies_of
from llmhost.gateway.routes import clashes, exposed_routes
from llmhost.inventory.problem import Problem
from llmhost.options.networks import overlap
from llmhost.settings import Settings

MOST_RATES = 32


def gateway_problems(settings: Settings) -> Iterator[Problem]:
    """Every rule of the gateway that joins several options, and what time has made wrong."""
    yield from _shared_digests(settings)
    yield from _expired_clients(settings)
    yield from _impossible_clients(settings)
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
                "is declared more than once, so the log could not tell whose request it was",
                f"make '{client.name}' a key of its own: llmhost key rotate {client.name} FILE",
            )


def _expired_clients(settings: Settings) -> Iterator[Problem]:
    now = datetime.now(UTC)
    for index, client in enumerate(settings.api_clients):
        if client.expires and client.expires <= now and not client.revoked:
            yield Problem(
                f"api_clients[{index}].expires",
                f"'{client.name}' has expired",
                f"give it more time, or end it with: llmhost key revoke {client.name} FILE",
            )


def _impossible_clients(settings: Settings) -> Iterator[Problem]:
    offered = {service.name for service in settings.offered}
    for index, client in enumerate(settings.api_clients):
        for service in () if isinstance(client.scope, str) else client.scope:
            if service not in offered:
                yield Problem(
                    f"api_clients[{index}].scope",
                    f"'{client.name}' may call '{service}', which is not among the services",
                    f"add '{service}' to services, or take it out of the scope",
                )
        for network in client.sources or ():
            if not any(overlap(network, each) for each in settings.gateway.sources):
                yield Problem(
                    f"api_clients[{index}].sources",
                    f"'{client.name}' may call from a network that can not reach the gateway",
                    "add the network to gateway_sources, or take it out here",
                )


def _clashing_routes(settings: Settings) -> Iterator[Problem]:
    for request, owners in clashes(exposed_routes(settings)):
        yield Problem(
            "services",
            f"{' and '.join(owners)} both answer at {request}",
            "put the service that shall answer there first, or leave one out",
        )


def _too_many_rates(settings: Settings) -> Iterator[Problem]:
    """nginx needs memory and a comparison at each request for every different rate."""
    rates = {policy.rate for policy in policies_of(settings.api_clients) if policy.rate}
    if len(rates) > MOST_RATES:
        yield Problem(
            "api_clients",
            f"{len(rates)} different pairs of requests_per_minute and burst are declared",
            f"settle for {MOST_RATES} pairs that several clients share",
        )


def _unfit_certificate(settings: Settings) -> Iterator[Problem]:
    """A certificate that the site brings is looked at before any host is."""
    gateway = settings.gateway
    given = {"certificate": gateway.certificate, "certificate_key": gateway.certificate_key}
    if gateway.tls != "files":
        return
    contents = {}
    for option, path in given.items():
        try:
            contents[option] = path.expanduser().read_bytes() if path else b""
        except OSError as error:
            what = f"can not be read: {error.strerror}"
            yield Problem(f"gateway_{option}", what, "give a file on the controller")
        if not path:
            what = 'is missing, and gateway_tls = "files" needs it'
            yield Problem(f"gateway_{option}", what, "give the path of a PEM file")
    if all(contents.get(option) for option in given):
        from llmhost.gateway.x509 import pair_faults  # few sites need it, and it takes time

        now = datetime.now(UTC)
        pair = (contents["certificate"], contents["certificate_key"])
        faults = pair_faults(*pair, gateway.names, now)
        for option, what in faults.items():
            yield Problem(f"gateway_{option}", what, "give a certificate and the key it belongs to")
