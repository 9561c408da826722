"""Debian packages and the repositories they come from."""

import shlex
from collections.abc import Mapping, Sequence

from pyinfra.api import StringCommand

from llmhost.facts.apt import InstalledPackages, RemoteKey, RepositoryFiles, RepositoryState
from llmhost.operations.changes import explain, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.operations.files import apply_command
from llmhost.resources import script_text
from llmhost.system.apt import plan, script
from llmhost.system.apt_repository import Repository
from llmhost.system.files import Absent, differences
from llmhost.system.openpgp import UnreadableKey, dearmored, fingerprint
from llmhost.system.overrides import KEPT


@declared(
    prefetch=lambda *packages, absent=(), **_: [
        ask(InstalledPackages, packages=[*packages, *absent])
    ]
)
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
    deletes /var/lib/docker. Packages of others that apt cannot configure are no failure.
    `keep_stopped` names units that a new package must not start yet.
    """
    found = get_fact(InstalledPackages, packages=[*packages, *absent])
    todo = plan(packages, versions or {}, absent, hold, found)
    if todo.reasons:
        explain(todo.reasons)
        yield StringCommand(script(todo, keep_stopped, lacking=True))


@declared(prefetch=lambda: [ask(InstalledPackages, packages=[])])
def settled() -> Commands:
    """Finish installations that were interrupted, of any package.

    A package that cannot be configured does not fail the host: what needs it does.
    """
    found = get_fact(InstalledPackages, packages=[])
    if found.unfinished or found.journal:
        explain(
            [f"{name} is {found.packages[name].status}" for name in found.unfinished]
            or ["dpkg was interrupted"]
        )
        finish = "finish_interrupted\napt --fix-broken install || true"
        yield StringCommand(f"{script_text('apt/functions.sh')}\n{finish}")


@declared(
    prefetch=lambda source, **_: [ask(RepositoryFiles, key=source.key_path, paths=source.paths)]
)
def repository(source: Repository, *, present: bool = True) -> Commands:
    """Add a repository whose key has the pinned fingerprint or, without `present`, remove it.

    The controller checks the key before it is installed; a wrong key fails this host without a
    change. Other files that name only this source are removed, with a copy in KEPT; a file that
    names others as well is refused.
    """
    found = get_fact(RepositoryFiles, key=source.key_path, paths=source.paths)
    if wrong := repository_differences(source, found, present=present):
        explain(wrong)
        yield from repository_commands(source, found, present=present)


def repository_differences(
    source: Repository, found: RepositoryState, *, present: bool
) -> list[str]:
    """What differs from the declared repository, in sentences."""
    if not present:
        return list(differences(source.removal, found.paths).values())
    others = [
        *source.clashes(found.listed),
        *(
            f"{path} has the source of {source.label} too"
            for path in source.superseded(found.listed)
        ),
    ]
    if _mistrust(source, found.key):
        return [f"apt does not trust the key of {source.label}", *others]
    return [*differences(source.entries(found.key), found.paths).values(), *others]


def repository_commands(source: Repository, found: RepositoryState, *, present: bool) -> Commands:
    """The commands that correct the differences."""
    if not present:
        yield apply_command(source.removal)
        return
    if clashes := source.clashes(found.listed):
        yield refuse(clashes)
        return
    # A dry run ends at the first command and must not fetch anything.
    yield StringCommand("true")
    key = source.key or found.key
    if _mistrust(source, key):
        key = get_fact(RemoteKey, url=source.key_url)
    if problem := _mistrust(source, key):
        yield refuse([problem])
    else:
        others = source.superseded(found.listed)
        if others:
            kept = f"install -d -m 0700 {KEPT}; cp -p --parents {shlex.join(others)} {KEPT}"
            yield StringCommand(f"set -e; {kept}")
        wrong = differences(source.entries(dearmored(key)), found.paths)
        yield apply_command([*wrong, *map(Absent, others)])


def _mistrust(source: Repository, key: bytes) -> str:
    """Why a key is not trusted; empty if it is the right one."""
    origin = f"The key of {source.label} at {source.key_url}"
    if not key:
        return f"{origin} could not be fetched"
    try:
        found = fingerprint(key)
    except UnreadableKey as error:
        return f"{origin} cannot be used: {error}"
    if found != source.fingerprint:
        return f"{origin} has the fingerprint {found}, not {source.fingerprint}"
    return ""
