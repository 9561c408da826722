"""`app_server_*`: a host whose programs call the LLM server."""

from llmhost.options.base import Section
from llmhost.options.types import (
    Address,
    Flag,
    HostName,
    HostPath,
    InventoryHost,
    SecretReference,
    UserName,
)


class AppServer(Section):
    """A host of the group `app_servers`. It gets an entry in its hosts file, the certificate of the
    site's authority, and a file of environment variables; nothing else on it changes."""

    api_key: SecretReference | None = None
    """Where the API key of the host's programs is on the controller: `env:NAME` or `file:PATH`.
    Never write the key itself into an inventory."""

    llm_host: InventoryHost | None = None
    """Host of the inventory whose gateway is called. None: the only host in the group `gateways`,
    or, without that group, the only host that is not an application server."""

    llm_name: HostName = "llm-server"
    """Name by which programs call that host; the hosts file maps it to the address."""

    llm_address: Address | None = None
    """Address of that host. None: the first of its `network_addresses`, or its `ssh_hostname`."""

    environment_file: HostPath = "/etc/llmhost/llm.env"
    """File with the variables, for systemd's `EnvironmentFile=`, Compose's `env_file:` or a shell;
    its mode is 0600."""

    environment_owner: UserName = "root"
    """User who may read that file: the one that the programs run as."""

    firewall: Flag = False
    """Close the host to everything except `firewall_ssh_sources` and `firewall_rules`."""
