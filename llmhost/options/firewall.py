"""`firewall_*`: who may reach the host."""

from collections import Counter
from typing import Annotated, Literal

from llmhost.options.base import Section
from llmhost.options.kind import Listed, Mistake
from llmhost.options.networks import EVERYONE
from llmhost.options.types import ConfirmSeconds, Flag, Networks, OneOf, Port, text


class FirewallRule(Section):
    """A port to open for a program that llmhost does not manage."""

    port: Port
    """Port on the host."""

    protocol: OneOf[Literal["tcp", "udp"]] = "tcp"
    """Transport protocol."""

    sources: Networks
    """Networks that may connect."""

    comment: Annotated[
        str, text(r"[ -~]{0,80}", "up to 80 printable ASCII characters", "metrics")
    ] = ""
    """Purpose of the port; `ufw status` shows it."""


def _one_rule_a_port(rules: tuple[FirewallRule, ...]) -> None:
    counted = Counter((rule.port, rule.protocol) for rule in rules)
    for (port, protocol), count in counted.items():
        if count > 1:
            raise Mistake(
                f"opens port {port}/{protocol} {count} times; join the sources in one rule"
            )


class Firewall(Section):
    """ufw, which denies every connection that is not declared here.

    The connection of the deploy itself stays allowed. Undeclared rules are removed, and published
    ports of containers are not reachable from outside.
    """

    enabled: Flag = True
    """False leaves ufw unchanged. Use it only behind another firewall."""

    ssh_port: Port = 22
    """Port of sshd."""

    ssh_sources: Networks = EVERYONE
    """Networks that may connect by SSH."""

    rules: Annotated[tuple[FirewallRule, ...], Listed(check=_one_rule_a_port)] = ()
    """Additional ports: records of `port`, `protocol` (`tcp` or `udp`), `sources` and `comment`."""

    confirm_seconds: ConfirmSeconds = 60
    """A change of rules is reverted unless the controller reconnects within this time."""
