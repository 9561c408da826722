"""pyinfra as a library: read an inventory, connect, and run deploy.py dry.

The pyinfra command exits with 0 on drift, on a mistyped inventory and on a limit that matches no
host (docs/decisions/0002-plan-reads-pyinfra-state.md). Here each of these is distinguished.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pyinfra
from pyinfra.api import Config, Host, Inventory, State, StringCommand
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_inventory, ctx_state

from llmhost.cli.errors import stop
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.messages import Messages
from llmhost.cli.progress import comparing
from llmhost.inventory.rules import broken_rules
from llmhost.inventory.site import Site, SiteHost, group_of
from llmhost.inventory.site_reader import (
    Rules,
    SiteError,
    SiteRules,
    no_rules,
    no_site_rules,
)
from llmhost.inventory.site_rules import site_problems
from llmhost.operations.comparison import compare
from llmhost.operations.connection_arguments import connection_arguments
from llmhost.operations.inventory import inventory_site
from llmhost.operations.pyinfra_patches import disconnect
from llmhost.operations.run_state import run_of
from llmhost.resources import DEPLOY


def hosts_within(inventory: Inventory, limit: Sequence[str]) -> list[Host]:
    """Hosts that match a limit (names, patterns or groups); all if there is no limit."""
    hosts = [host for host in inventory if not limit or _matches(host, limit)]
    if not hosts:
        wanted = " or ".join(limit)
        stop(f"no host or group matches {wanted}; the inventory has: {_names(inventory)}")
    return hosts


def site_hosts(path: str, limit: Sequence[str], rules: Rules = broken_rules) -> list[SiteHost]:
    """Hosts of an inventory file within a limit; stops with the mistakes of all of them.

    No host is contacted. Each host is checked on its own.
    """
    return checked_hosts(load_inventory(path), limit, rules)


def checked_hosts(
    inventory: Inventory, limit: Sequence[str], rules: Rules = broken_rules
) -> list[SiteHost]:
    """`site_hosts` of an inventory that was read before."""
    hosts = hosts_within(inventory, limit)
    site = checked_site(inventory, hosts, rules, no_site_rules)
    return [site[host.name] for host in hosts]


def checked_site(
    inventory: Inventory,
    hosts: Iterable[Host],
    rules: Rules = broken_rules,
    site_rules: SiteRules = site_problems,
) -> Site:
    """`inventory_site`; stops with the mistakes of these hosts."""
    try:
        return inventory_site(inventory, hosts, rules, site_rules)
    except SiteError as error:
        stop(*error.sentences)


def _matches(host: Host, limit: Sequence[str]) -> bool:
    return any(fnmatch(host.name, pattern) or pattern in host.groups for pattern in limit)


def _names(inventory: Inventory) -> str:
    return ", ".join(sorted(host.name for host in inventory))


@contextmanager
def dry_run(path: str, limit: Sequence[str]) -> Iterator[tuple[State, Messages]]:
    """Connect to the hosts and evaluate deploy.py against them, changing nothing.

    Hosts that could not be reached or failed are in `state.failed_hosts`.
    """
    with connected(path, limit) as (state, messages):
        with comparing(state):
            _evaluate(state)
        yield state, messages


@contextmanager
def one_host(path: str, name: str) -> Iterator[Host]:
    """One connected host of an inventory; stops with a sentence if it is unreachable."""
    with connected(path, [name]) as (state, messages):
        yield only_host(state, messages, name)


def only_host(state: State, messages: Messages, name: str) -> Host:
    """The one host that a session was limited to; stops if there are several or it is
    unreachable."""
    host = only_one(list(filter(state.is_host_in_limit, state.inventory)), name)
    if host not in state.active_hosts:
        stop(*(f"{name}: {each}" for each in messages.about(host.name)))
    return host


def only_one(hosts: Sequence[Host], name: str) -> Host:
    """The one host that matches a name; stops if there are several."""
    if len(hosts) > 1:
        names = ", ".join(sorted(each.name for each in hosts))
        stop(f"{name} matches {len(hosts)} hosts; give one of {names}")
    return hosts[0]


def group_members(inventory: str, host: str) -> tuple[str, tuple[str, ...]]:
    """The name of the one host that matches, and the members of its engine group, the head first;
    without one, it alone."""
    loaded = load_inventory(inventory)
    name = only_one(hosts_within(loaded, [host]), host).name
    return name, group_of(name, (each.data.dict() for each in loaded))


def as_root(host: Host, command: str) -> str:
    """The output of a shell command on a host; stops with its error if it fails."""
    succeeded, output = host.run_shell_command(StringCommand(command), **connection_arguments(host))
    if not succeeded:
        stop(f"{host.name}: {output.stderr.strip() or 'the command failed: ' + command}")
    return str(output.stdout)


@contextmanager
def connected(
    path: str, limit: Sequence[str], *, strict: bool = True
) -> Iterator[tuple[State, Messages]]:
    """Check the inventory, then connect to the hosts within the limit.

    Not `strict`: each option must be valid by itself, but the rules between them do not matter. So
    a key that has expired does not hide the state of a host.
    """
    inventory = load_inventory(path)
    hosts = hosts_within(inventory, limit)
    messages = _capture(path)
    state = State(check_for_changes=False)  # `compare` does it, with the facts read together
    run_of(state).summary = False  # each command reports failed hosts itself
    state.cwd = str(Path.cwd())
    rules = (broken_rules, site_problems) if strict else (no_rules, no_site_rules)
    pyinfra.is_cli = True  # deploy.py orders its operations by call position only then
    config = Config()
    with ctx_state.use(state), ctx_config.use(config), ctx_inventory.use(inventory):
        # First: pyinfra raises TypeError for connection data of the wrong type.
        run_of(state).site = checked_site(inventory, hosts, *rules)
        state.init(inventory, config, initial_limit=hosts)
        config.lock_current_state()
        try:
            _connect(state)
            yield state, messages
        finally:
            disconnect(state)


def _connect(state: State) -> None:
    state.set_stage(StateStage.Connect)
    try:
        connect_all(state)
    except PyinfraError as error:
        if state.active_hosts:
            stop(*str(error).splitlines())


def _evaluate(state: State) -> None:
    from pyinfra_cli.exceptions import UnexpectedExternalError
    from pyinfra_cli.util import load_deploy_file, load_func

    if not state.active_hosts:
        return
    state.set_stage(StateStage.Prepare)
    try:
        load_deploy_file(state, str(DEPLOY))
        load_func(state, compare)
    except PyinfraError as error:
        if state.active_hosts:
            stop(*str(error).splitlines())
    except Exception as error:  # deploy.py is Python code, and so are the bodies of operations
        why = error.exception if isinstance(error, UnexpectedExternalError) else error
        stop(f"{DEPLOY.name} failed: {type(why).__name__}: {why}")


def _capture(path: str) -> Messages:
    messages = Messages(path)
    logger = logging.getLogger("pyinfra")
    logger.handlers = [messages]
    logger.propagate = False
    # paramiko would print a traceback; pyinfra reports the same error in a sentence.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)
    return messages
