"""Firewall: which networks may reach the host."""

from ipaddress import ip_network

from llmhost import host_packages
from llmhost.operations import apt, systemd, ufw
from llmhost.operations.component import component
from llmhost.settings import Settings
from llmhost.stack.engine_group import PORTS, others_of
from llmhost.system.ufw import Rule


@component("Firewall")
def guard_host(settings: Settings) -> None:
    """Close an LLM server to everyone but the declared networks."""
    if settings.firewall.enabled:
        _guard(settings, *gateway_openings(settings), *group_openings(settings))


@component("Firewall")
def guard_app_server(settings: Settings) -> None:
    """Close an application server to everyone but the declared networks, if its options say so."""
    if settings.firewall.enabled and settings.app_server.firewall:
        _guard(settings)


def _guard(settings: Settings, *own: Rule) -> None:
    apt.packages(
        *host_packages.FIREWALL,
        absent=["iptables-persistent", "netfilter-persistent"],  # ufw declares that it breaks them
        name="Install ufw",
    )
    systemd.without_overrides(
        "ufw.service",
        known=settings.system.accepted_overrides,
        then="reload",
        name="Remove overrides of ufw's unit",
    )
    ufw.rules(
        Rule(settings.firewall.ssh_port, "tcp", settings.firewall.ssh_sources, "SSH"),
        *own,
        *(Rule(r.port, r.protocol, r.sources, r.comment) for r in settings.firewall.rules),
        confirm_seconds=settings.firewall.confirm_seconds,
        name="Admit only the declared networks",
    )


def gateway_openings(settings: Settings) -> tuple[Rule, ...]:
    """nginx's ports: the gateway's, and one for each browser UI."""
    return (
        Rule(settings.gateway.port, "tcp", settings.admitted_to_gateway, "llmhost gateway"),
        *(
            Rule(ui.ui_port, "tcp", ui.sources, f"llmhost UI of {name}")
            for name, ui in settings.uis.items()
        ),
    )


def group_openings(settings: Settings) -> tuple[Rule, ...]:
    """Ports that the other members of the host's engine group may reach."""
    group = settings.engine_group
    if not settings.member or group.interface is None:
        return ()
    sources = tuple(ip_network(each) for each in others_of(group, settings.member))
    return (Rule(PORTS, "tcp", sources, "llmhost engine group", group.interface),)
