"""Settings of every host that a run is about, checked together before any of them changes."""

from pyinfra.api import DeployError, Host, State

from llmhost.settings.problem import SettingsError
from llmhost.settings.reader import read_settings
from llmhost.settings.root import Settings

_checked: dict[int, dict[str, Settings]] = {}


def settings_of(state: State, host: Host) -> Settings:
    """One host's settings. Raises DeployError with the mistakes of all hosts of the run."""
    if id(state) not in _checked:
        _checked[id(state)] = check_all(state)
    return _checked[id(state)][host.name]


def check_all(state: State) -> dict[str, Settings]:
    """Settings by host name, of every host within the limit."""
    settings: dict[str, Settings] = {}
    mistakes: list[str] = []
    for host in state.inventory:
        if not state.is_host_in_limit(host):
            continue
        try:
            settings[host.name] = read_settings(host.data.dict())
        except SettingsError as error:
            mistakes += [problem.sentence(host.name) for problem in error.problems]
    if mistakes:
        listed = "\n".join(f"    {sentence}" for sentence in mistakes)
        raise DeployError(f"the inventory has mistakes; nothing was changed:\n{listed}")
    return settings
