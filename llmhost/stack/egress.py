"""Where containers of the stack may connect to: rules of nftables (docs/decisions/0102)."""

from pathlib import PurePosixPath

from llmhost.settings import Settings
from llmhost.stack.engine_group import others_of
from llmhost.system.files import Absent, Directory, Entry, File
from llmhost.template import render

TABLE = "llmhost_egress"
RULES = "/etc/llmhost/egress.nft"
CONTAINER_USER = 10001
"""User of all engines; templates/stack/service.yaml.j2."""

DROP_IN = "/etc/systemd/system/docker.service.d/50-llmhost-egress.conf"


def is_limited(settings: Settings) -> bool:
    """Whether there are containers whose connections are limited."""
    return settings.stack.egress == "deny" and bool(settings.services)


def egress_files(settings: Settings) -> tuple[Entry, ...]:
    """The rules, and a drop-in by which Docker loads them before each start."""
    if not is_limited(settings):
        return (Absent(RULES), Absent(DROP_IN))
    rules = render(
        "egress/egress.nft.j2",
        table=TABLE,
        bridge=settings.stack.bridge,
        openings=_openings(settings),
        host_ports=[settings.gateway.port] if settings.gateway_callers else [],
        group=settings.engine_group,
        members=others_of(settings.engine_group, settings.member) if settings.member else (),
        user=CONTAINER_USER,
    )
    files = (File(RULES, rules), File(DROP_IN, render("egress/docker.conf.j2", rules=RULES)))
    return (*(Directory(str(PurePosixPath(file.path).parent)) for file in files), *files)


def _openings(settings: Settings) -> list[str]:
    """A rule for each declared network and port."""
    return [
        f"{'ip' if network.version == 4 else 'ip6'} daddr {network}"
        f" {each.protocol} dport {each.port} accept"
        for each in settings.destinations
        for network in each.networks
    ]
