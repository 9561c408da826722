"""URLs in the options of services, and the services of the stack in them."""

from collections.abc import Iterable
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443, "redis": 6379}


def services_in(addresses: Iterable[str]) -> tuple[str, ...]:
    """The hosts without a dot or a colon, each once: these are services of the stack."""
    hosts = (urlsplit(address).hostname or "" for address in addresses)
    return tuple(dict.fromkeys(host for host in hosts if not set(".:") & set(host)))


def endpoint_of(url: str) -> tuple[str, int]:
    """Host and port of a URL; port 0 if it is not a number of a port."""
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    return parts.hostname or "", port
