"""`firewall_*`: who may reach the host."""

from collections import Counter
from typing import Annotated, Literal

from llmhost.options.base import Section
from llmhost.options.kind import Listed, Mistake
from llmhost.options.networks import EVERYONE
from llmhost.options.types import ConfirmSeconds, Flag, Networks, OneOf, Port, text


class FirewallRule(Section):
    """A further port of the host to open, for a program that llmhost does not run itself."""

    port: Port
    """Port on the host."""

    protocol: OneOf[Literal["tcp", "udp"]] = "tcp"
    """Transport protocol."""

    sources: Networks
    """Networks that may reach the port."""

    comment: Annotated[
        str, text(r"[ -~]{0,80}", "up to 80 printable ASCII characters", "metrics")
    ] = ""
    """What the port is for, as `ufw status` shows it."""


def _one_rule_a_port(rules: tuple[FirewallRule, ...]) -> None:
    counted = Counter((rule.port, rule.protocol) for rule in rules)
    for (port, protocol), count in counted.items():
        if count > 1:
            raise Mistake(
                f"opens port {port}/{protocol} {count} times; join the sources in one rule"
            )


class Firewall(Section):
    """ufw, which denies everything except what is declared here.

    The connection that the deploy itself uses is always admitted. Rules that are not declared are
    removed, and published ports of containers stay closed from outside.
    """

    enabled: Flag = True
    """Set it to False only on a host behind another firewall; ufw is then left as it is."""

    ssh_port: Port = 22
    """Port of sshd."""

    ssh_sources: Networks = EVERYONE
    """Networks that may open SSH connections."""

    rules: Annotated[tuple[FirewallRule, ...], Listed(check=_one_rule_a_port)] = ()
    """Further ports: records of `port`, `protocol` (`tcp` or `udp`), `sources` and `comment`."""

    confirm_seconds: ConfirmSeconds = 60
    """A change of rules is undone unless the controller reconnects within this time."""
