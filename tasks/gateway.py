"""Gateway: nginx, the server's only door."""

from pyinfra import logger
from pyinfra.api import deploy

from llmhost import gateway
from llmhost.filetree import File
from llmhost.operations import apt, files, nginx
from llmhost.settings.root import Settings
from llmhost.template import render


@deploy("Gateway")
def configure_gateway(settings: Settings) -> None:
    """Let the declared clients call the declared routes, and nobody anything else."""
    places = gateway.Places()
    if settings.gateway.tls == "off":
        logger.warning('gateway_tls = "off": keys and prompts cross the network in the clear')
    apt.packages(
        "nginx",
        "libnginx-mod-http-perl",
        "logrotate",
        "openssl",
        name="Install nginx with its Perl module",
    )
    files.present(
        File(
            "/etc/logrotate.d/llmhost-gateway",
            render("gateway/llmhost-gateway.j2", places=places),
        ),
        name="Rotate the access log",
    )
    nginx.configuration(
        *gateway.configuration(settings, places),
        directory=places.own,
        status_port=settings.gateway.status_port,
        tls=gateway.tls(settings),
        name="Open the declared routes to the declared clients",
    )
