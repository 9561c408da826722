"""`firewall_*`: who may reach the host."""

from ipaddress import IPv4Network, IPv6Network

from pydantic import Field

from llmhost.settings.base import Section

Network = IPv4Network | IPv6Network


class Firewall(Section):
    """ufw with everything denied but what is named here.

    The connection that the deploy itself uses is always admitted.
    """

    enabled: bool = True
    """Switch off only on a host that another firewall guards."""

    ssh_port: int = Field(default=22, ge=1, le=65535)
    """Port of sshd."""

    ssh_sources: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
    """Networks that may open SSH connections."""

    confirm_seconds: int = Field(default=60, ge=10, le=600)
    """A change of rules undoes itself unless the controller can reconnect within this time."""
