"""Environment variables of an application server. Pure."""

from llmhost.gateway.models import is_routed
from llmhost.inventory.site import LlmEndpoint
from llmhost.system.ca_certificates import BUNDLE

CA_LABEL = "llmhost"
"""Name of the site's authority in the host's list of authorities."""

_OPENAI = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}


def variables(endpoint: LlmEndpoint) -> dict[str, str]:
    """Values for templates/app_server/llm.env.j2, except the secret."""
    settings = endpoint.host.settings
    openai = [
        service.name
        for service in settings.catalogue
        if _OPENAI & {route.path for route in service.routes}
    ]
    base = _base(endpoint, openai[0] if openai and not is_routed(settings) else "")
    return {
        "openai_url": f"{base}/v1",
        "ollama_url": _base(endpoint, "ollama"),
        "bundle": "" if settings.gateway.tls == "off" else BUNDLE,
    }


def _base(endpoint: LlmEndpoint, service: str) -> str:
    """URL of a service: the first is at the gateway's `/`, the others are below `/NAME`."""
    if service in endpoint.host.settings.services[1:]:
        return f"{endpoint.url}/{service}"
    return endpoint.url
