"""From the data of all hosts in an inventory to a checked `Site`. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmhost.inventory.problem import Problem, SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.rules import broken_rules
from llmhost.inventory.site import Site, SiteHost
from llmhost.inventory.site_rules import site_problems
from llmhost.settings import Settings

Rules = Callable[[Settings], Iterable[Problem]]
SiteRules = Callable[[SiteHost, Site], Iterable[Problem]]


@dataclass(frozen=True)
class HostData:
    """Inventory data of one host: its merged data and its groups."""

    name: str
    data: Mapping[str, Any]
    groups: Collection[str] = ()


class SiteError(ValueError):
    """Every mistake in an inventory, one sentence each."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("\n".join(self.sentences))


def no_rules(settings: Settings) -> Iterable[Problem]:
    """For commands that only look at hosts."""
    del settings
    return ()


def no_site_rules(host: SiteHost, site: Site) -> Iterable[Problem]:
    """For commands that check each host separately."""
    del host, site
    return ()


def read_site(
    hosts: Iterable[HostData],
    within: Collection[str] | None = None,
    *,
    rules: Rules = broken_rules,
    site_rules: SiteRules = site_problems,
) -> Site:
    """The hosts by name. Raises SiteError with every mistake of the hosts `within` a limit.

    A host outside the limit is left out if it has mistakes. `rules` hold within one host's
    settings, `site_rules` between hosts.
    """
    site: dict[str, SiteHost] = {}
    mistakes: list[tuple[str, Problem]] = []
    for host in hosts:
        try:
            site[host.name] = _site_host(host, rules)
        except SettingsError as error:
            mistakes += [(host.name, problem) for problem in error.problems]
    checked = [host for name, host in site.items() if within is None or name in within]
    mistakes += [(host.name, problem) for host in checked for problem in site_rules(host, site)]
    reported = [(name, problem) for name, problem in mistakes if within is None or name in within]
    if reported:
        raise SiteError(problem.sentence(name) for name, problem in reported)
    return site


def _site_host(host: HostData, rules: Rules) -> SiteHost:
    settings = read_settings(host.data, rules, host.name)
    contact = str(host.data.get("ssh_hostname") or host.name)
    return SiteHost(host.name, settings, frozenset(host.groups), contact, host.data)
