"""pyinfra does the same in less time (docs/decisions/0077).

It works out the same things again for every operation of every host, which took a third of the
controller's time in a run that changes nothing. Here they are worked out once, or without what
nobody asks for; tests/unit/test_quick.py compares the results with those of pyinfra itself.

Has to be imported before the facts are, which are slow to define otherwise.
"""

from functools import cache, partial
from inspect import getframeinfo, stack
from typing import Any

from pyinfra.api import Host, arguments, facts, util


def hasten() -> None:
    """Make quicker what is the same for all hosts. May be repeated."""
    # An operation's place in the deploy is told by the numbers of the lines on the stack. By
    # default inspect reads the lines' text too, and searches all modules for its file.
    util.stack = partial(stack, context=0)
    util.getframeinfo = partial(getframeinfo, context=0)
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
