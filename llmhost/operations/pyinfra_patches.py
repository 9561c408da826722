"""All patches of pyinfra (docs/decisions/0077), one function for each.

Each patch gives the same results as pyinfra's own code, but faster or with fewer side effects. They
use private parts of pyinfra 3.10: with any other minor version, or LLMHOST_PYINFRA_PATCHES=0, none
is applied, and everything works without them.

Patches of the process are applied on import, which must precede the import of facts: pyinfra
determines the types of its arguments for each fact that is defined.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import cache, partial, wraps
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import click
import gevent
import pyinfra
from pyinfra.api import BaseStateCallback, Config, Host, Inventory, State, arguments, facts
from pyinfra.api.connect import disconnect_all
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.util import PYINFRA_INSTALL_DIR
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.context import ctx_state

from llmhost.inventory.groups import group_mistakes
from llmhost.inventory.site_reader import SiteError
from llmhost.operations.inventory import inventory_site, refusal
from llmhost.operations.run_state import add_callbacks, run_of
from llmhost.resources import DEPLOY

PYINFRA = "3.10."
SWITCH = "LLMHOST_PYINFRA_PATCHES"


def applicable() -> bool:
    """Whether the patches fit this pyinfra version and are not disabled."""
    return pyinfra.__version__.startswith(PYINFRA) and os.environ.get(SWITCH) != "0"


def patch_process() -> None:
    """Apply the patches for all runs of this process. Idempotent."""
    if applicable():
        order_by_frames()
        remember_argument_types()
        fail_one_host_on_eof()
        fail_one_host_on_key()
        print_no_traceback_of_pyinfra_errors()
        interrupt_between_greenlets()
        disconnect_after_interrupt()


def patch_run(state: State, host: Host) -> None:
    """Apply the patches for one host of a run, before its first operation. Idempotent."""
    if applicable():
        merge_host_data(host)
        set_no_delay(host)
        notice_lost_host(host)
        add_callbacks(state, _Connections)


def check_before_connecting(state: State) -> None:
    """pyinfra reads deploy.py after it has connected to all hosts, and has no hook between its
    inventory and the connections. For a site's config.py, which it reads first: a deploy checks the
    inventory there. Other commands, such as `exec`, and deploys of the operator's own do not.
    """
    if applicable() and _is_deploy():
        check_groups()
        vars(ctx_state.get())["init"] = partial(_checked_init, state.init)


def check_groups() -> None:
    """Refuse an inventory file with a group that pyinfra would ignore, or with a host that it would
    read in part. Idempotent."""
    if applicable():
        from pyinfra_cli import inventory  # importing it patches the process

        vars(inventory)["_get_groups_from_filename"] = _checked_groups


def _checked_groups(path: str) -> dict[str, Any]:
    from pyinfra_cli import inventory
    from pyinfra_cli.exceptions import CliError

    variables = inventory.exec_file(path, return_locals=True)
    groups = {
        name: value
        for name, value in variables.items()
        if inventory._is_inventory_group(name, value)
    }
    if mistakes := [*group_mistakes(variables, groups, Path(path).name.rsplit(".", 1)[0])]:
        raise CliError("\n".join(mistakes))
    return groups


def _is_deploy() -> bool:
    command = click.get_current_context(silent=True)
    operations = command.params.get("operations", ()) if command else ()
    ours = (Path("deploy.py").resolve(), DEPLOY.resolve())
    return any(Path(each).resolve() in ours for each in operations)


def _checked_init(
    init: Callable[..., None],
    inventory: Inventory,
    config: Config | None,
    initial_limit: Collection[Host] | None = None,
) -> None:
    within = inventory if initial_limit is None else initial_limit
    try:
        run_of(ctx_state.get()).site = inventory_site(inventory, within)
    except SiteError as error:
        from pyinfra_cli.exceptions import CliError  # importing it patches the process

        raise CliError(refusal(error)) from None
    init(inventory, config, initial_limit)


def order_by_frames() -> None:
    """pyinfra orders operations by line numbers of the call stack. It uses `inspect`, which reads
    the sources and finds the modules of all frames: 30 % of the time of a run that changes
    nothing."""
    # (As an attribute of pyinfra.api, `operation` is the decorator and not the module.)
    vars(import_module("pyinfra.api.operation"))["get_operation_order_from_stack"] = operation_order


def operation_order(state: State) -> list[int]:
    """An operation's position in the deploy: the line numbers of the calls that lead to it."""
    frames = []
    frame: FrameType | None = sys._getframe(1)
    while frame:
        frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    frames.reverse()
    files = [file for file, _ in frames]
    deploy = state.current_deploy_filename
    # As in pyinfra: only the last frame if the deploy is not in the stack.
    first = (files.index(deploy) if deploy in files else len(files) - 1) if deploy else 0
    lines = [line for file, line in frames[first:] if not file.startswith(PYINFRA_INSTALL_DIR)]
    return [*([state.current_op_file_number] if pyinfra.is_cli else []), *lines]


def remember_argument_types() -> None:
    """The types of pyinfra's global arguments never change, but pyinfra determines them again for
    each operation, deploy and fact."""
    if not hasattr(arguments.all_global_arguments, "cache_clear"):
        once = cache(arguments.all_global_arguments)
        arguments.all_global_arguments = facts.all_global_arguments = once


def fail_one_host_on_eof() -> None:
    """paramiko raises EOFError when a connection ends. pyinfra expects an OSError, which fails only
    the host; any other error ends the run for all hosts."""
    for name in ("run_shell_command", "put_file", "rsync"):
        method = getattr(Host, name)
        if not hasattr(method, "__wrapped__"):
            setattr(Host, name, _connection_reset(method))


def _connection_reset(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except EOFError as error:
            raise ConnectionResetError("the connection was lost") from error

    return call


def fail_one_host_on_key() -> None:
    """pyinfra ends the run for all hosts if it cannot read the SSH key of one."""
    name = "connect"
    method = getattr(SSHConnector, name)
    if not hasattr(method, "__wrapped__"):
        setattr(SSHConnector, name, _unread_key(method))


def _unread_key(connect: Callable[..., None]) -> Callable[..., None]:
    @wraps(connect)
    def call(connector: SSHConnector) -> None:
        try:
            connect(connector)
        except ConnectError:
            raise
        except PyinfraError as error:
            raise ConnectError(str(error)) from None

    return call


def print_no_traceback_of_pyinfra_errors() -> None:
    """pyinfra reports its own errors; gevent adds a traceback to those that end a greenlet."""
    hub = gevent.get_hub()
    if PyinfraError not in hub.NOT_ERROR:
        hub.NOT_ERROR = (*hub.NOT_ERROR, PyinfraError)


def interrupt_between_greenlets() -> None:
    """The handler of Ctrl-C raises an exception wherever the process is. Within gevent, this can be
    a hook that runs while it forks for a local command: Python ignores exceptions there, and the
    lock that the hook releases stays locked. So the exception is raised in the main greenlet then,
    and from there: gevent prints a traceback of one that its loop gets."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler) and not hasattr(handler, "__wrapped__"):
        with suppress(ValueError):  # another thread than the main one
            signal.signal(signal.SIGINT, _between_greenlets(handler))


def _between_greenlets(handler: Callable[[int, FrameType | None], Any]) -> Callable[..., None]:
    @wraps(handler)
    def call(number: int, frame: FrameType | None) -> None:
        hub = gevent.get_hub()
        main = hub.parent is gevent.getcurrent()
        if main and not any(name.startswith("gevent") for name in _modules(frame)):
            handler(number, frame)
        else:
            hub.loop.run_callback_threadsafe(_in_main, hub, handler, number)

    return call


def _in_main(hub: Any, handler: Callable[[int, FrameType | None], Any], number: int) -> None:
    try:
        handler(number, None)
    except BaseException as interrupt:
        hub.parent.throw(interrupt)


def _modules(frame: FrameType | None) -> Iterator[str]:
    while frame:
        yield frame.f_globals.get("__name__", "")
        frame = frame.f_back


def disconnect_after_interrupt() -> None:
    """For pyinfra's own command; llmhost's commands call `disconnect`."""
    if command := sys.modules.get("pyinfra_cli.cli"):
        vars(command)["disconnect_all"] = disconnect


def disconnect(state: State) -> None:
    """Disconnect from all hosts. pyinfra would wait until hosts have ended what they still do after
    an interrupt: its pool has room for one greenlet per host."""
    state.pool.kill(block=False)
    disconnect_all(state)


def merge_host_data(host: Host) -> None:
    """Merge a host's data once: each operation reads thirty arguments, each from up to six layers.
    Values that a deploy sets itself (`host.data.key = …`, data of `@deploy`) still apply."""
    layers = host.data.__dict__
    deploy = layers["datas"][-1]
    known: dict[str, Any] = {}
    for layer in reversed(layers["datas"][1:-1]):
        known |= layer() if callable(layer) else layer  # already merged: two deploy files
    layers["datas"] = (host.data.override_datas, known, deploy)


def set_no_delay(host: Host) -> None:
    """Disable Nagle's algorithm; paramiko leaves it on, which costs about 40 ms per command."""
    if connection := _connection(host):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


_SILENT_SECONDS = 120
"""More than a firewall or an address on trial needs until it is undone."""
_KEEPALIVE = {
    "TCP_KEEPIDLE": _SILENT_SECONDS // 4,
    "TCP_KEEPINTVL": _SILENT_SECONDS // 4,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": _SILENT_SECONDS * 1000,
}


def notice_lost_host(host: Host) -> None:
    """Let the kernel end a connection whose host has been off, or cut off, for two minutes. While a
    command runs, nothing is sent: pyinfra and all other hosts would wait for it for ever."""
    if connection := _connection(host):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:  # not all are on macOS
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _connection(host: Host) -> socket.socket | None:
    """The socket to a host; none if there is none, or if it is a channel of a jump host."""
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client else None
    connection = getattr(transport, "sock", None)
    return connection if isinstance(connection, socket.socket) else None


class _Connections(BaseStateCallback):
    """Also applies both to later connections."""

    @staticmethod
    def host_connect(state: State, host: Host) -> None:
        del state
        set_no_delay(host)
        notice_lost_host(host)


patch_process()
