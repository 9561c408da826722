"""Debian packages and the repositories they come from."""

from collections.abc import Mapping, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from llmhost.apt import plan, script
from llmhost.facts.apt import InstalledPackages
from llmhost.operations.changes import Commands, explain


@operation()
def packages(
    *packages: str,
    versions: Mapping[str, str] | None = None,
    absent: Sequence[str] = (),
    hold: bool | None = None,
    keep_stopped: Sequence[str] = (),
) -> Commands:
    """Install what is missing and remove `absent`, in one transaction.

    `versions` pins packages exactly, downwards too. `hold` keeps apt from upgrading the packages;
    `False` lifts a hold, `None` leaves it as it is. Package lists are fetched only when there is
    something to install and they are older than the sources or than an hour. Nothing is removed
    that `absent` does not name, and configuration files are never purged: purging docker.io
    deletes /var/lib/docker. `keep_stopped` names units that a new package must not start yet.
    """
    found = host.get_fact(InstalledPackages, packages=[*packages, *absent])
    todo = plan(packages, versions or {}, absent, hold, found)
    if todo.reasons:
        explain(todo.reasons)
        yield StringCommand(script(todo, keep_stopped))
