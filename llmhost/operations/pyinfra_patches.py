"""pyinfra does the same in less time (docs/decisions/0077).

It works out the same things again for every operation of every host, which took a third of the
controller's time in a run that changes nothing. Here they are worked out once, or without what
nobody asks for; tests/unit/test_pyinfra_patches.py compares the results with pyinfra's own.

Has to be imported before the facts are, which are slow to define otherwise.
"""

import sys
from functools import cache
from importlib import import_module
from types import FrameType
from typing import Any

import pyinfra
from pyinfra.api import Host, State, arguments, facts
from pyinfra.api.util import PYINFRA_INSTALL_DIR


def place(state: State) -> list[int]:
    """An operation's place in the deploy: the numbers of the lines that lead to it from there.

    pyinfra's own asks inspect, which reads the sources and looks for the modules of all frames.
    """
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


def hasten() -> None:
    """Make quicker what is the same for all hosts. May be repeated."""
    # (As an attribute of pyinfra.api, `operation` is the decorator and not the module.)
    module = import_module("pyinfra.api.operation")
    vars(module)["get_operation_order_from_stack"] = place
    # The types of pyinfra's global arguments are always the same.
    if not hasattr(arguments.all_global_arguments, "cache_clear"):
        once = cache(arguments.all_global_arguments)
        arguments.all_global_arguments = facts.all_global_arguments = once


def settle(host: Host) -> None:
    """Merge a host's data, which is asked for thirty arguments of each operation, once.

    What a deploy sets itself (`host.data.key = …`, data of `@deploy`) is still found.
    """
    layers = host.data.__dict__
    deploy = layers["datas"][-1]
    known: dict[str, Any] = {}
    for layer in reversed(layers["datas"][1:-1]):
        known |= layer() if callable(layer) else layer  # settled already: two deploy files
    layers["datas"] = (host.data.override_datas, known, deploy)


hasten()
