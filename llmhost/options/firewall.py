"""`firewall_*`: who may reach the host."""

from collections import Counter
from typing import Literal

from pydantic import Field, field_validator

from llmhost.options.base import Section
from llmhost.options.types import EVERYONE, Networks


class FirewallRule(Section):
    """A further port of the host that is opened, for what llmhost does not run itself."""

    port: int = Field(ge=1, le=65535)
    """Port on the host."""

    protocol: Literal["tcp", "udp"] = "tcp"
    """Transport that is let through."""

    sources: Networks
    """Networks that may reach the port."""

    comment: str = Field(default="", max_length=80, pattern=r"^[ -~]*$")
    """What the port is for, as `ufw status` shows it."""


class Firewall(Section):
    """ufw with everything denied but what is named here.

    The connection that the deploy itself uses is always admitted. Rules that are not declared are
    removed, and published ports of containers stay closed from outside.
    """

    enabled: bool = True
    """Switch off only on a host that another firewall guards; ufw is then left as it is."""

    ssh_port: int = Field(default=22, ge=1, le=65535)
    """Port of sshd."""

    ssh_sources: Networks = EVERYONE
    """Networks that may open SSH connections."""

    rules: tuple[FirewallRule, ...] = ()
    """Further ports: records of `port`, `protocol` (`tcp` or `udp`), `sources` and `comment`."""

    confirm_seconds: int = Field(default=60, ge=10, le=600)
    """A change of rules undoes itself unless the controller can reconnect within this time."""

    @field_validator("rules")
    @classmethod
    def _one_rule_a_port(cls, rules: tuple[FirewallRule, ...]) -> tuple[FirewallRule, ...]:
        counted = Counter((rule.port, rule.protocol) for rule in rules)
        for (port, protocol), count in counted.items():
            if count > 1:
                raise ValueError(f"opens port {port}/{protocol} {count} times; join the sources")
        return rules
