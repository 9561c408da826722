"""The roles that an application server may ask for text. Pure."""

from collections.abc import Iterator

from llmhost.gateway.models import model_places
from llmhost.gateway.routes import exposed_routes
from llmhost.inventory.role import Role
from llmhost.inventory.site import Site, SiteHost
from llmhost.settings import Settings

_CHAT = "/v1/chat/completions"


def generating_roles(gateway: SiteHost, site: Site) -> dict[str, str]:
    """Path of the gateway's chat route by role, for every model that generates text: of this host,
    or of the servers behind it. A role of two services is that of the first one."""
    routes = [each for each in exposed_routes(gateway.settings) if each.upstream_path == _CHAT]
    texts = [p.model for p in model_places(gateway.settings) if p.task == "generate"]
    roles = {name: _CHAT for route in routes for name in texts if name in route.models}
    paths = {route.service: route.path for route in routes if route.service}
    for settings in _servers(gateway, site):
        for model in settings.models:
            if model.task == "generate" and model.service in paths:
                for name in (model.name, *(each.name for each in model.adapters)):
                    roles.setdefault(name, paths[model.service])
    return roles


def _servers(gateway: SiteHost, site: Site) -> Iterator[Settings]:
    if not gateway.settings.gateway.upstreams:
        yield gateway.settings
        return
    for host in site.values():
        if host.role is Role.LLM_SERVER:
            yield host.settings
