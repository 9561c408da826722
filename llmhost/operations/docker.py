"""Docker Engine: packages, and the configuration of the daemon."""

from collections.abc import Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from pyinfra.api import StringCommand

from llmhost.docker.daemon_json import (
    BrokenConfig,
    KeyPath,
    changed_keys,
    hardened,
    key_paths,
    merge,
    parse_config,
    parse_owned,
    render_config,
    render_owned,
    restart_sentences,
)
from llmhost.docker.guard_first import DROP_IN, guard_first_files
from llmhost.docker.packages import (
    ALL_NAMES,
    DOCKER,
    docker_repository,
    engine_packages,
    unsupported,
)
from llmhost.facts.docker import DaemonConfig, Engine
from llmhost.facts.files import PathStates
from llmhost.operations.apt import repository_commands, repository_differences
from llmhost.operations.changes import explain, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.operations.files import apply_command
from llmhost.options.docker import without_rules
from llmhost.resources import script
from llmhost.system import apt
from llmhost.system.files import UNPACK, File, archive, candidate_path, differences

CONFIG = "/etc/docker/daemon.json"
SOCKET = "/run/docker.sock"
REMOVED = ("hosts",)
"""Keys of daemon.json that are always removed: `hosts` opens the API on the network, and
dockerd does not start with it beside the `-H` of its unit."""
OVERRIDES = (
    "/etc/default/docker",
    "/etc/systemd/system/docker.service.d",
    "/run/systemd/system/docker.service.d",
)
"""The daemon is restarted if an override was removed from these places after its start."""

_RECORDS = "/var/lib/llmhost/docker"
_LAST = "/var/lib/llmhost/docker-last"
_FUNCTIONS = "docker/functions.sh"
SETTLE = script("docker/settle_config.sh", _LAST, CONFIG, _RECORDS, functions=_FUNCTIONS)
"""Shell command for after a start of the daemon: if it does not start with a new CONFIG, the last
one is restored, and it starts again."""

_UNITS = ("containerd.service", "docker.service", "docker.socket")


def _engine_question(repository_url: str, key_fingerprint: str) -> Question:
    paths = docker_repository(repository_url, key_fingerprint, None, "", "")
    return ask(Engine, packages=list(ALL_NAMES), key=paths.key_path, paths=paths.paths)


def _record(owner: str) -> str:
    """The file that lists the keys of daemon.json that an owner has set."""
    return f"{_RECORDS}/{owner}.json"


@declared(
    prefetch=lambda source, *, repository_url, key_fingerprint, **_: [
        _engine_question(repository_url, key_fingerprint)
    ]
)
def engine(
    source: str,
    *,
    version: str | None = None,
    repository_url: str,
    key_fingerprint: str,
    key: bytes | None = None,
) -> Commands:
    """Install Docker Engine with compose and buildx from one source, and remove the packages of the
    other source.

    `version` pins the engine's package and holds all packages. A new engine is not started: without
    a configuration, it could use address ranges of the site.
    """
    vendor = partial(docker_repository, repository_url, key_fingerprint, key)
    found = get_fact(Engine, **_engine_question(repository_url, key_fingerprint).arguments)
    chosen = engine_packages(source, found.distribution, found.version)
    if chosen is None:
        yield refuse([unsupported(source, found.distribution, found.version)])
        return
    repository = vendor(found.distribution, found.codename)
    wanted = source == DOCKER
    misplaced = repository_differences(repository, found.repository, present=wanted)
    pins = dict.fromkeys(chosen.pinned, version) if version else {}
    todo = apt.plan(chosen.wanted, pins, chosen.conflicting, bool(version), found.packages)
    if misplaced or todo.reasons:
        explain([*misplaced, *todo.reasons])
    if misplaced:
        yield from repository_commands(repository, found.repository, present=wanted)
    if todo.reasons:
        installed = any(name in found.packages.packages for name in chosen.pinned)
        yield StringCommand(apt.script(todo, () if installed else _UNITS))


@declared(
    prefetch=lambda config, *, owner="docker", harden=False: [
        ask(DaemonConfig, config=CONFIG, record=_record(owner))
    ]
)
def daemon(config: Mapping[str, Any], *, owner: str = "docker", harden: bool = False) -> Commands:
    """Set the declared keys of daemon.json and leave all other keys alone, except REMOVED and
    those with a value in WITHOUT_RULES.

    `harden` adds the keys of hardening that the host supports; those of `config` override them.

    Keys that an earlier run set for the same `owner` and that `config` no longer contains are
    removed. dockerd validates the file before it is installed. It takes effect when the daemon is
    restarted: systemd.service(…, newer_than=[CONFIG], afterwards=SETTLE).
    """
    record = _record(owner)
    found = get_fact(DaemonConfig, config=CONFIG, record=record)
    try:
        existing = parse_config(found.config, CONFIG)
    except BrokenConfig as error:
        yield refuse([str(error), "Fix the file, or move it away to start from an empty one."])
        return
    if harden:
        config = hardened(config, bridge_filter=found.bridge_filter)
    earlier, ours = parse_owned(found.record), key_paths(config)
    harmful = without_rules(existing)
    gone = {*REMOVED, *harmful}
    merged = merge(
        {key: value for key, value in existing.items() if key not in gone}, config, earlier
    )
    changed = changed_keys(existing, merged)
    text = render_config(merged) if changed else found.config
    wrong = differences([File(CONFIG, text), File(record, render_owned(ours))], found.states)
    if wrong:
        sentences = [_changed(key, harmful) for key in changed] or [*wrong.values()]
        explain([*sentences, *(restart_sentences(existing, changed) if found.running else [])])
        yield _install_config(text, record, earlier | ours, ours)


def _changed(key: str, harmful: Mapping[str, str]) -> str:
    if key in harmful:
        return f"{CONFIG} has {harmful[key]}; the key is removed"
    return f"{CONFIG} differs in {key}"


@declared(
    prefetch=lambda wanted: [
        ask(PathStates, paths=[each.path for each in guard_first_files(wanted)]),
        ask(DaemonConfig, config=CONFIG, record=_record("docker")),
    ]
)
def guarded(wanted: bool) -> Commands:
    """Keep ufw's rules for containers ahead of Docker's at each start of the daemon, or do not.

    A later systemd.service(…, newer_than=OVERRIDES) restarts a daemon that started without.
    """
    entries = guard_first_files(wanted)
    found = get_fact(PathStates, paths=[each.path for each in entries])
    wrong = differences(entries, found)
    if not wrong:
        return
    daemon = get_fact(DaemonConfig, config=CONFIG, record=_record("docker"))
    restarts = daemon.running and any(each.path == DROP_IN for each in wrong)
    explain([*wrong.values(), *(restart_sentences(_loaded(daemon.config), ()) if restarts else ())])
    yield apply_command([*wrong])


def _loaded(text: str) -> dict[str, Any]:
    """A file that is broken was refused before."""
    try:
        return parse_config(text, CONFIG)
    except BrokenConfig:
        return {}


@declared(prefetch=lambda: [ask(PathStates, paths=[SOCKET])])
def api_socket() -> Commands:
    """Only root and the group `docker` may use Docker's API, which is as good as root's access. A
    socket that does not exist yet is left to systemd."""
    found = get_fact(PathStates, paths=[SOCKET]).get(SOCKET)
    if found is None:
        return
    if found.mode != "0660":
        explain([f"{SOCKET} has mode {found.mode}"])
    elif found.owner != "root" or found.group not in ("root", "docker"):
        explain([f"{SOCKET} belongs to {found.owner}:{found.group}"])
    else:
        return
    yield StringCommand(f"chown root:docker {SOCKET} && chmod 0660 {SOCKET}")


def _install_config(
    text: str, record: str, union: set[KeyPath], ours: set[KeyPath]
) -> StringCommand:
    """The record first lists every key that may be ours, then the actual ones, so that a run that
    is killed in between loses none of them."""
    before, after = candidate_path(f"{record}.before"), candidate_path(record)
    candidate = candidate_path(CONFIG)
    contents = {
        candidate: File(CONFIG, text),
        before: File(record, render_owned(union)),
        after: File(record, render_owned(ours)),
    }
    lines = [
        f"set -e\nmkdir -p -m 0755 {PurePosixPath(CONFIG).parent} {PurePosixPath(record).parent}",
        UNPACK,
        script(
            "docker/install_config.sh",
            *(candidate, CONFIG, before, record, after, _LAST),
            functions=_FUNCTIONS,
        ),
    ]
    return StringCommand("\n".join(lines), _stdin=archive(contents))
