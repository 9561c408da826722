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
    """A host of the group `app_servers`. A deploy adds an entry to its hosts file, installs the
    certificate of the site's authority and writes a file of environment variables."""

    api_key: SecretReference | None = None
    """Where the controller finds the API key of the host's programs: `env:NAME` or `file:PATH`.
    Never write the key itself into an inventory."""

    llm_host: InventoryHost | None = None
    """Host of the inventory whose gateway the programs call. None: the only host in the group
    `gateways`, or else the only LLM server."""

    llm_name: HostName = "llm-server"
    """Name of that host for the programs; the hosts file maps it to the address."""

    llm_address: Address | None = None
    """Address of that host. None: the first of its `network_addresses`, or its `ssh_hostname`."""

    environment_file: HostPath = "/etc/llmhost/llm.env"
    """File with the variables, mode 0600, for systemd's `EnvironmentFile=`, Compose's `env_file:`
    or a shell."""

    environment_owner: UserName = "root"
    """Owner of that file: the user that runs the programs."""

    firewall: Flag = False
    """Deny all connections except those of `firewall_ssh_sources` and `firewall_rules`."""
