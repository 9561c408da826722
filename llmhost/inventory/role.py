"""Roles of hosts, which determine their tasks, packages and checks. Pure."""

from collections.abc import Collection
from enum import Enum

from llmhost.settings import Settings

APP_SERVERS = "app_servers"
GATEWAYS = "gateways"


class Role(Enum):
    """The role of a host; each has exactly one."""

    LLM_SERVER = "LLM server"
    GATEWAY = "gateway"
    APP_SERVER = "application server"


def role_of(settings: Settings, groups: Collection[str]) -> Role:
    """The role of a host with these settings that is in these groups of its inventory."""
    if APP_SERVERS in groups:
        return Role.APP_SERVER
    return Role.GATEWAY if settings.gateway.upstreams else Role.LLM_SERVER
