"""Connections of clients to the gateway."""

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass

import pytest

from llmhost.gateway.tls import can_be_served
from llmhost.settings import Settings


@dataclass(frozen=True)
class Door:
    """The gateway's URL, and curl's arguments for its address and certificate authority."""

    url: str
    curl: tuple[str, ...]


def door_of(server_name: str, address: str, settings: Settings) -> Door:
    """The gateway of a server at this address, as seen from another machine."""
    gateway = settings.gateway
    if gateway.tls == "off":
        return Door(gateway.url(address), ())
    # By name, because certificates are for names.
    name = next(iter(gateway.names), server_name if can_be_served(server_name) else address)
    trust = connecting_to(name, address, gateway.port)
    # With --outside, the file may have another path on that machine.
    authority = os.environ.get("LLMHOST_CA") or gateway.ca_certificate
    trust += ["--cacert", str(authority)] if authority else []
    return Door(gateway.url(name), tuple(trust))


def connecting_to(name: str, address: str, port: int) -> list[str]:
    """curl's arguments that lead this name to an address."""
    places = (f"[{each}]" if ":" in each else each for each in (name, address))
    return ["--connect-to", ":".join(f"{place}:{port}" for place in places)]


def operators_key(settings: Settings, known: Collection[str]) -> str:
    """The key in LLMHOST_API_KEY; skips the check without one, or if it is only a client's of other
    hosts: servers behind a gateway admit the gateway alone. `known` are the digests of all clients
    of the inventory. A key of nobody is a mistake that the check itself reports."""
    key = os.environ.get("LLMHOST_API_KEY", "")
    if not key:
        pytest.skip("not checked: LLMHOST_API_KEY is not set, so no completion can be requested")
    digest = hashlib.sha256(key.encode()).hexdigest()
    own = {each for one in settings.api_clients for each in (one.sha256, one.previous_sha256)}
    if digest in known and digest not in own:
        pytest.skip("not checked: LLMHOST_API_KEY belongs to a client of other hosts only")
    return key
