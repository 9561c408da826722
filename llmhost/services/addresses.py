"""Addresses in the options of services, and which services of the stack they name."""

from collections.abc import Iterable
from urllib.parse import urlsplit


def services_in(addresses: Iterable[str]) -> tuple[str, ...]:
    """The hosts without a dot or a colon, each once: in a stack these are services."""
    hosts = (urlsplit(address).hostname or "" for address in addresses)
    return tuple(dict.fromkeys(host for host in hosts if not set(".:") & set(host)))
