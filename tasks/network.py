"""Network: the host's name and addresses."""

from llmhost import host_packages
from llmhost.operations import apt, hostname, hosts_file, network, resolver
from llmhost.operations.component import component
from llmhost.settings import Settings
from llmhost.system.addresses import Addressing


@component("Network")
def configure_network(settings: Settings) -> None:
    """Set names first, then addresses, on trial; whatever is not declared stays as it is."""
    options = settings.network
    own = {options.hostname: "127.0.1.1"} if options.hostname else {}
    hosts_file.entries(
        {**own, **{each: str(address) for each, address in options.hosts.items()}},
        component="network",
        name="Give the declared names their addresses",
    )
    if options.hostname:
        hostname.present(options.hostname, name="Give the host its name")
    if options.addresses:
        apt.packages(*host_packages.NETWORK, name="Install iproute2")
        network.addresses(
            Addressing(options.addresses, options.gateways, options.interface or ""),
            confirm_seconds=options.confirm_seconds,
            name="Give the host its addresses",
        )
    if options.dns:
        resolver.nameservers(
            [str(server) for server in options.dns],
            domains=options.search_domains,
            name="Use the declared name servers",
        )
