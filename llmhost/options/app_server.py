"""`app_server_*`: a host whose programs call the LLM server."""

from ipaddress import IPv4Address, IPv6Address

from pydantic import Field

from llmhost.options.base import Section
from llmhost.options.gateway import Name
from llmhost.secret import SecretReference


class AppServer(Section):
    """A host of the group `app_servers`. It gets a hosts entry, the site's authority, and a file
    of environment variables; nothing else of it is touched."""

    api_key: SecretReference | None = None
    """Where the API key of the host's programs is on the controller: `env:NAME`, or `file:PATH`.
    The key itself never stands in an inventory."""

    llm_host: str | None = None
    """Host of the inventory whose gateway is called. None: the only one in the group `gateways`,
    or, without that group, the only host that is not an application server."""

    llm_name: Name = "llm-server"
    """Name that programs call that host by; the hosts file gives it its address."""

    llm_address: IPv4Address | IPv6Address | None = None
    """Address of that host. None: the first of its `network_addresses`, or its `ssh_hostname`."""

    environment_file: str = Field(default="/etc/llmhost/llm.env", pattern=r"^/[^\s]+[^/\s]$")
    """File with the variables, for systemd's `EnvironmentFile=`, Compose's `env_file:` or a shell;
    its mode is 0600."""

    environment_owner: str = Field(default="root", pattern=r"^[a-z_][a-z0-9_-]{0,31}$")
    """User who may read that file: the one that the programs run as."""

    firewall: bool = False
    """Close the host to everyone but `firewall_ssh_sources` and `firewall_rules`."""
