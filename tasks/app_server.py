"""Application server: a host whose programs call the LLM server."""

from llmhost import host_packages
from llmhost.inventory.app_server import CA_LABEL, variables
from llmhost.inventory.site import LlmEndpoint
from llmhost.operations import apt, ca_certificates, environment_file, hosts_file
from llmhost.operations.component import component
from llmhost.settings import Settings


@component("Application server")
def prepare_app_server(settings: Settings, endpoint: LlmEndpoint | None) -> None:
    """Let the host's programs call the LLM server by its name, with their key, over TLS."""
    assert endpoint, "the site's rules refuse an application server without one"
    options, gateway = settings.app_server, endpoint.host.settings.gateway
    hosts_file.entries(
        {endpoint.name: str(endpoint.address)},
        component="app_server",
        name="Give the LLM server its name",
    )
    if gateway.tls == "ca":
        apt.packages(
            *host_packages.AUTHORITIES, name="Install the CA certificates of the distribution"
        )
    ca_certificates.trusted(
        gateway.ca_directory.expanduser() if gateway.tls == "ca" else None,
        label=CA_LABEL,
        name="Trust the site's certificate authority",
    )
    environment_file.present(
        options.environment_file,
        template="app_server/llm.env.j2",
        owner=options.environment_owner,
        secret=options.api_key or "",
        values=variables(endpoint),
        name="Write the environment that programs call it with",
    )
