"""Settings of every host that a run is about, checked together before any of them changes."""

from pyinfra.api import DeployError, Host, State

from llmhost.inventory.problem import Problem, SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.renames import warn_of_old_names
from llmhost.inventory.site import SiteHost, Upstream, upstream
from llmhost.inventory.site_rules import site_problems
from llmhost.settings import Settings

_checked: dict[int, dict[str, SiteHost]] = {}


def settings_of(state: State, host: Host) -> Settings:
    """One host's settings. Raises DeployError with the mistakes of all hosts of the run."""
    return _site(state)[host.name].settings


def upstream_of(state: State, host: Host) -> Upstream:
    """The gateway that an application server calls. Raises DeployError as `settings_of` does."""
    site = _site(state)
    found = upstream(site[host.name], site)
    assert isinstance(found, Upstream), "check_all has refused an application server without one"
    return found


def _site(state: State) -> dict[str, SiteHost]:
    if id(state) not in _checked:
        _checked[id(state)] = check_all(state)
    return _checked[id(state)]


def check_all(state: State) -> dict[str, SiteHost]:
    """All hosts by name; mistakes of those outside the run's limit are not its business."""
    site: dict[str, SiteHost] = {}
    mistakes: list[str] = []
    within = {host.name for host in state.inventory if state.is_host_in_limit(host)}

    def note(host: str, problems: tuple[Problem, ...]) -> None:
        mistakes.extend(problem.sentence(host) for problem in problems if host in within)

    for host in state.inventory:
        if host.name in within:
            warn_of_old_names(host.name, host.data.dict())
        try:
            site[host.name] = _site_host(host)
        except SettingsError as error:
            note(host.name, error.problems)
    for name, each in site.items():
        if name in within:  # a secret of another host need not be at hand
            note(name, tuple(site_problems(each, site)))
    if mistakes:
        listed = "\n".join(f"    {sentence}" for sentence in mistakes)
        raise DeployError(f"the inventory has mistakes; nothing was changed:\n{listed}")
    return site


def _site_host(host: Host) -> SiteHost:
    data = host.data.dict()
    contact = str(data.get("ssh_hostname") or host.name)
    return SiteHost(host.name, read_settings(data), frozenset(host.groups), contact)
