"""What a host is in a site: it decides which tasks, packages and checks are for it. Pure."""

from collections.abc import Collection
from enum import Enum

from llmhost.settings import Settings

APP_SERVERS = "app_servers"
GATEWAYS = "gateways"


class Role(Enum):
    """A host has exactly one."""

    LLM_SERVER = "LLM server"
    GATEWAY = "gateway"
    APP_SERVER = "application server"


def role_of(settings: Settings, groups: Collection[str]) -> Role:
    """The role of a host with these settings that is in these groups of its inventory."""
    if APP_SERVERS in groups:
        return Role.APP_SERVER
    return Role.GATEWAY if settings.gateway.upstreams else Role.LLM_SERVER
