"""Everything that llmhost changes in pyinfra (docs/decisions/0077): one function for each change.

Each gives the same results as pyinfra's own code, in less time or with less harm. They touch
private parts of pyinfra 3.10: with any other minor version, or LLMHOST_PYINFRA_PATCHES=0, none is
applied, and everything works without them.

Those for the process are applied on import, which has to come before that of the facts: pyinfra
works out the types of its arguments for each fact that is defined.
"""

import os
import socket
import sys
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from types import FrameType
from typing import Any

import gevent
import pyinfra
from pyinfra.api import BaseStateCallback, Host, State, arguments, facts
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.util import PYINFRA_INSTALL_DIR

from llmhost.operations.run_state import add_callbacks

PYINFRA = "3.10."
SWITCH = "LLMHOST_PYINFRA_PATCHES"


def applicable() -> bool:
    """Whether the patches are made for this pyinfra, and not switched off."""
    return pyinfra.__version__.startswith(PYINFRA) and os.environ.get(SWITCH) != "0"


def patch_process() -> None:
    """What holds for all runs of this process. May be repeated."""
    if applicable():
        order_by_frames()
        remember_argument_types()
        fail_one_host_on_eof()
        print_no_traceback_of_pyinfra_errors()


def patch_run(state: State, host: Host) -> None:
    """What holds for one host of a run, before its first operation is declared. May be repeated."""
    if applicable():
        merge_host_data(host)
        set_no_delay(host)
        add_callbacks(state, _NoDelay)


def order_by_frames() -> None:
    """pyinfra orders operations by line numbers of the call stack. It asks `inspect`, which reads
    the sources and looks for the modules of all frames: 30 % of the time of a run that changes
    nothing."""
    # (As an attribute of pyinfra.api, `operation` is the decorator and not the module.)
    vars(import_module("pyinfra.api.operation"))["get_operation_order_from_stack"] = operation_order


def operation_order(state: State) -> list[int]:
    """An operation's place in the deploy: the numbers of the lines that lead to it from there."""
    frames = []
    frame: FrameType | None = sys._getframe(1)
    while frame:
        frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    frames.reverse()
    files = [file for file, _ in frames]
    deploy = state.current_deploy_filename
    # Like pyinfra's: from the last frame alone where the deploy is none of them.
    first = (files.index(deploy) if deploy in files else len(files) - 1) if deploy else 0
    lines = [line for file, line in frames[first:] if not file.startswith(PYINFRA_INSTALL_DIR)]
    return [*([state.current_op_file_number] if pyinfra.is_cli else []), *lines]


def remember_argument_types() -> None:
    """The types of pyinfra's global arguments are always the same, but are worked out again for
    each operation, deploy and fact."""
    if not hasattr(arguments.all_global_arguments, "cache_clear"):
        once = cache(arguments.all_global_arguments)
        arguments.all_global_arguments = facts.all_global_arguments = once


def fail_one_host_on_eof() -> None:
    """paramiko raises EOFError when a connection ends. pyinfra expects an OSError, which fails the
    host; any other error ends the run of all hosts."""
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


def print_no_traceback_of_pyinfra_errors() -> None:
    """pyinfra reports its own errors; gevent adds a traceback to those that end a greenlet."""
    hub = gevent.get_hub()
    if PyinfraError not in hub.NOT_ERROR:
        hub.NOT_ERROR = (*hub.NOT_ERROR, PyinfraError)


def merge_host_data(host: Host) -> None:
    """Merge a host's data once: each operation asks for thirty arguments, each of which is looked
    for in six layers. What a deploy sets itself (`host.data.key = …`, data of `@deploy`) is still
    found."""
    layers = host.data.__dict__
    deploy = layers["datas"][-1]
    known: dict[str, Any] = {}
    for layer in reversed(layers["datas"][1:-1]):
        known |= layer() if callable(layer) else layer  # merged already: two deploy files
    layers["datas"] = (host.data.override_datas, known, deploy)


def set_no_delay(host: Host) -> None:
    """Switch Nagle's algorithm off; paramiko leaves it on, which costs about 40 ms a command."""
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client else None
    connection = getattr(transport, "sock", None)
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _NoDelay(BaseStateCallback):
    """Over later connections too."""

    @staticmethod
    def host_connect(state: State, host: Host) -> None:
        del state
        set_no_delay(host)


patch_process()
