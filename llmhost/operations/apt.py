"""Debian packages and the repositories they come from."""

from collections.abc import Mapping, Sequence

from pyinfra import host
from pyinfra.api import StringCommand

from llmhost.apt import plan, script
from llmhost.apt_repository import Repository
from llmhost.facts.apt import InstalledPackages, RemoteKey, RepositoryFiles, RepositoryState
from llmhost.filetree import differences
from llmhost.openpgp import UnreadableKey, dearmored, fingerprint
from llmhost.operations.changes import Commands, declared, explain, refuse
from llmhost.operations.files import apply_command


@declared
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


@declared
def repository(source: Repository) -> Commands:
    """Let apt take packages from a repository, whose key must have the pinned fingerprint.

    The key is compared on the controller before it is put in place; a wrong one fails this host
    and leaves everything as it was.
    """
    found = host.get_fact(RepositoryFiles, key=source.key_path, paths=source.paths)
    if wrong := distrusted(source, found):
        explain(wrong)
        yield from trust(source, found)


def distrusted(source: Repository, found: RepositoryState) -> list[str]:
    """What apt lacks to take packages from a repository, in words."""
    if _mistrust(source, found.key):
        return [f"apt does not trust the key of {source.label}"]
    return list(differences(source.entries(found.key), found.paths).values())


def trust(source: Repository, found: RepositoryState) -> Commands:
    """The commands that bring about what `distrusted` misses."""
    # Something harmless first: a dry run ends at the first command, and shall fetch nothing.
    yield StringCommand("true")
    key = source.key or found.key
    if _mistrust(source, key):
        key = host.get_fact(RemoteKey, url=source.key_url)
    if problem := _mistrust(source, key):
        yield refuse([problem])
    else:
        wrong = differences(source.entries(dearmored(key)), found.paths)
        yield apply_command(list(wrong))


def _mistrust(source: Repository, key: bytes) -> str:
    """Why a key must not be trusted; empty if it is the right one."""
    origin = f"The key of {source.label} at {source.key_url}"
    if not key:
        return f"{origin} could not be fetched"
    try:
        found = fingerprint(key)
    except UnreadableKey as error:
        return f"{origin} can not be used: {error}"
    if found != source.fingerprint:
        return f"{origin} has the fingerprint {found}, not {source.fingerprint}"
    return ""
