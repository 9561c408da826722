"""Name servers of a host: a drop-in of systemd-resolved, or /etc/resolv.conf. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmhost.system.files import File, PathState
from llmhost.template import render

RESOLV_CONF = "/etc/resolv.conf"
DROP_IN = "/etc/systemd/resolved.conf.d/60-llmhost.conf"
PATHS = (RESOLV_CONF, DROP_IN)


@dataclass(frozen=True)
class ResolverState:
    """`paths` are states of `PATHS`; `target` is the target of /etc/resolv.conf, if it is a link;
    `resolved` whether systemd-resolved runs."""

    paths: Mapping[str, PathState] = field(default_factory=dict)
    target: str = ""
    resolved: bool = False

    @property
    def asks_resolved(self) -> bool:
        return self.resolved and "/run/systemd/resolve/" in self.target


def refusal(state: ResolverState) -> str:
    """Why the name servers cannot be set on this host; empty if they can."""
    if state.target and not state.asks_resolved:
        return (
            f"{RESOLV_CONF} is a link to {state.target}, which another program writes: set the name"
            " servers there, and remove network_dns from the inventory"
        )
    return ""


def file(servers: Sequence[str], domains: Sequence[str], state: ResolverState) -> File:
    """The file with the addresses of the servers and the search domains."""
    template, path = "resolv.conf.j2", RESOLV_CONF
    if state.asks_resolved:
        template, path = "60-llmhost.conf.j2", DROP_IN
    return File(path, render(f"network/{template}", servers=servers, domains=domains))
