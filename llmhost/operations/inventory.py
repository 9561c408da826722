"""The site that a pyinfra inventory declares; the whole site is checked before any host changes."""

from collections.abc import Iterable

from pyinfra.api import DeployError, Host, Inventory, State

from llmhost.inventory.renames import warn_of_old_names
from llmhost.inventory.role import Role
from llmhost.inventory.rules import broken_rules
from llmhost.inventory.site import Address, LlmEndpoint, Site, SiteHost, llm_endpoint
from llmhost.inventory.site_reader import HostData, Rules, SiteError, SiteRules, read_site
from llmhost.inventory.site_rules import site_problems
from llmhost.monitoring.prometheus import monitored
from llmhost.operations.run_state import run_of


def inventory_site(
    inventory: Inventory,
    within: Iterable[Host],
    rules: Rules = broken_rules,
    site_rules: SiteRules = site_problems,
) -> Site:
    """`read_site` of all hosts. Raises SiteError with the mistakes of those `within` a limit."""
    declared = [HostData(host.name, host.data.dict(), host.groups) for host in inventory]
    names = {host.name for host in within}
    for host in declared:
        if host.name in names:
            warn_of_old_names(host.name, host.data)
    return read_site(declared, names, rules=rules, site_rules=site_rules)


def site_of(state: State) -> Site:
    """The hosts of a run. Raises SiteError; the mistakes of hosts outside its limit are ignored."""
    run = run_of(state)
    if run.site is None:
        limited = filter(state.is_host_in_limit, state.inventory)
        run.site = inventory_site(state.inventory, limited)
    return run.site


def site_host(host: Host) -> SiteHost:
    """The current host of a deploy. Raises DeployError with the mistakes of the whole run."""
    try:
        return site_of(host.state)[host.name]
    except SiteError as error:
        raise DeployError(refusal(error)) from None


def refusal(error: SiteError) -> str:
    """Why a deploy does not begin: all mistakes of a site."""
    listed = "\n".join(f"    {sentence}" for sentence in error.sentences)
    return f"the inventory has mistakes; nothing was changed:\n{listed}"


def monitored_by(host: Host) -> tuple[SiteHost, ...]:
    """The hosts whose metrics this one collects; none unless it is a monitoring server."""
    here = site_host(host)
    return monitored(here.name, site_of(host.state)) if here.settings.monitoring.server else ()


def later_addresses(host: Host) -> frozenset[Address]:
    """Addresses of the members of a host's engine group that a deploy sets itself."""
    site = site_of(host.state)
    members = [site[name] for name in site_host(host).settings.engine_group.names if name in site]
    declared = (each for member in members for each in member.settings.network.addresses)
    return frozenset(each.ip for each in declared)


def llm_endpoint_of(host: Host) -> LlmEndpoint | None:
    """The LLM endpoint of an application server; None for a host of another role."""
    here = site_host(host)
    if here.role is not Role.APP_SERVER:
        return None
    found = llm_endpoint(here, site_of(host.state))
    assert isinstance(found, LlmEndpoint), "the site's rules refuse an application server without"
    return found
