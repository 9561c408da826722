"""URLs in the options of services, and the services of the stack in them."""

from collections.abc import Iterable
from urllib.parse import urlsplit


def services_in(addresses: Iterable[str]) -> tuple[str, ...]:
    """The hosts without a dot or a colon, each once: these are services of the stack."""
    hosts = (urlsplit(address).hostname or "" for address in addresses)
    return tuple(dict.fromkeys(host for host in hosts if not set(".:") & set(host)))
