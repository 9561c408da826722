"""Mistakes in the options of a gateway in front of several LLM servers."""

import re
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

from llmhost.inventory.problem import Problem
from llmhost.secret import read_secret
from llmhost.services import catalogue
from llmhost.settings import Settings

_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{20,500}")


def upstream_problems(settings: Settings) -> Iterator[Problem]:
    """Rules between `gateway_upstreams` and the options that require it."""
    gateway = settings.gateway
    if not gateway.upstreams:
        given = gateway.upstream_services or gateway.upstream_key or gateway.upstream_name
        if given or gateway.upstream_authority:
            what = "is required by the other gateway_upstream_* options"
            yield Problem("gateway_upstreams", what, "list the servers, or remove those options")
        return
    if settings.services:
        what = "are for LLM servers, and this host is a gateway"
        yield Problem(
            "services", what, "declare them there, and list them in gateway_upstream_services"
        )
    yield from _repeated_servers(settings)
    yield from _unknown_services(settings)
    yield from _unfit_key(settings)
    if gateway.upstream_tls != "off":
        yield from _unfit_name(settings)
    yield from _unfit_authority(settings)


def _repeated_servers(settings: Settings) -> Iterator[Problem]:
    upstreams = settings.gateway.upstreams
    for what in ("name", "endpoint"):
        for value, count in Counter(getattr(each, what) for each in upstreams).items():
            if count > 1:
                yield Problem(
                    "gateway_upstreams", f"'{value}' is declared {count} times", "keep one"
                )


def _unknown_services(settings: Settings) -> Iterator[Problem]:
    services = settings.gateway.upstream_services
    known = f"write services such as: {', '.join(sorted(catalogue()))}"
    if not services:
        yield Problem("gateway_upstream_services", "is empty, so clients could call nothing", known)
    for service, count in Counter(services).items():
        if service not in catalogue():
            yield Problem("gateway_upstream_services", f"'{service}' is not a service", known)
        elif count > 1:
            what = f"'{service}' is declared {count} times"
            yield Problem("gateway_upstream_services", what, "keep one")


def _unfit_key(settings: Settings) -> Iterator[Problem]:
    reference = settings.gateway.upstream_key
    advice = "create a key with: llmhost key new NAME, and add its line to the servers' api_clients"
    if reference is None:
        what = "is missing, and the servers require a key"
        yield Problem("gateway_upstream_key", what, advice)
        return
    try:
        key = read_secret(reference)
    except ValueError as error:
        yield Problem("gateway_upstream_key", str(error), advice)
        return
    if not _KEY.fullmatch(key):
        yield Problem("gateway_upstream_key", "refers to a value that is not an API key", advice)


def _unfit_name(settings: Settings) -> Iterator[Problem]:
    found = settings.gateway.upstream_name
    advice = "write a host name that all servers have in gateway_names"
    if found is None:
        what = "is missing, so nginx could not verify certificates of servers"
        yield Problem("gateway_upstream_name", what, advice)
        return
    try:
        ip_address(found)
    except ValueError:
        return
    # ngx_ssl_check_host checks host names only, and TLS has no server name for an address.
    yield Problem("gateway_upstream_name", "is an address, which nginx cannot verify", advice)


def _unfit_authority(settings: Settings) -> Iterator[Problem]:
    path, advice = settings.gateway.upstream_authority, "write the path of a PEM file"
    if settings.gateway.upstream_tls != "files":
        return
    if path is None:
        what = 'is missing, and gateway_upstream_tls = "files" requires it'
        yield Problem("gateway_upstream_authority", what, advice)
        return
    from cryptography import x509  # slow to import, and few sites need it

    try:
        x509.load_pem_x509_certificates(path.expanduser().read_bytes())
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        yield Problem("gateway_upstream_authority", what, advice)
    except ValueError:
        yield Problem("gateway_upstream_authority", "contains no certificate in PEM format", advice)
